"""The knobs a training script has declared, and where each one stands. Pure; knows no knob by name."""

from dataclasses import dataclass

from app.store import Snapshot
from trainer_core.spec.commands import CommandState, SetKnob
from trainer_core.spec.records import CommandChanged, KnobDeclared


@dataclass(frozen=True)
class KnobView:
    """One knob and its present value."""

    name: str
    low: float
    high: float
    value: float
    unit: str
    meaning: str

    @property
    def label(self) -> str:
        """The name as people read it, with its unit."""
        words = self.name.replace("_", " ").capitalize()
        return f"{words} ({self.unit})" if self.unit else words


def knobs(snapshot: Snapshot) -> list[KnobView]:
    """Every knob in the order of its first declaration, with the value of its newest declaration or command."""
    rows = sorted((*snapshot.events[KnobDeclared], *snapshot.events[CommandChanged]), key=lambda row: row.seq)
    declared: dict[str, KnobDeclared] = {}
    values: dict[str, float] = {}
    for row in rows:
        match row.record:
            case KnobDeclared(name=name, value=value):
                declared[name], values[name] = row.record, value
            case CommandChanged(state=CommandState.APPLIED, command=SetKnob(name=name, value=value)):
                values[name] = value
            case _:
                pass
    return [
        KnobView(name, knob.low, knob.high, values[name], knob.unit, knob.meaning) for name, knob in declared.items()
    ]
