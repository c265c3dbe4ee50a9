"""Knobs that a training script declares for its operators: name, bounds, value. Knows nothing of what they turn."""

import math
from collections.abc import Iterable, Mapping
from typing import Protocol

from trainer_core.spec.errors import ConfigError
from trainer_core.spec.step_record import JournalRecord


class KnobDeclared(JournalRecord, frozen=True, tag="knob"):
    """The script offers a knob: ``SetKnob(name, value)`` sets it. Said again when it is declared again."""

    step: int
    name: str
    low: float
    high: float
    value: float
    """When it was declared."""
    unit: str = ""
    meaning: str = ""


class Bounded(Protocol):
    """A name with bounds."""

    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def checked_knob(knobs: Mapping[str, Bounded], name: str, value: float) -> None:
    """Raises ConfigError when there is no such knob, or when ``value`` is outside its bounds."""
    knob = knobs.get(name)
    if knob is None:
        raise ConfigError(f"{name}: no such knob; {listed(knobs)}")
    if not math.isfinite(value) or not knob.low <= value <= knob.high:
        raise ConfigError(f"{name} = {value:g}: must be a number from {knob.low:g} to {knob.high:g}")


def listed(knobs: Mapping[str, Bounded]) -> str:
    """The knobs there are, in words."""
    if not knobs:
        return "this run has declared none"
    return "this run has " + ", ".join(f"{name} ({k.low:g} to {k.high:g})" for name, k in knobs.items())


def declared(records: Iterable[object]) -> dict[str, KnobDeclared]:
    """The newest declaration of every knob among ``records``, which come oldest first."""
    return {record.name: record for record in records if isinstance(record, KnobDeclared)}
