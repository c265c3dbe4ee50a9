"""What a training loop of somebody's own says of itself: the newest value of each thing. Pure; judges nothing."""

from dataclasses import dataclass

from app.store import Snapshot
from app.views import words
from app.views.knobs import knobs
from app.views.measured import newest
from trainer_core.spec.records import ValidationMeasured

REPORTED = (
    ("Loss", "loss"), ("Gradient norm", "grad_norm"), ("Learning rate", "learning_rate"),
    ("Parameter norm", "param_norm"), ("Update norm", "update_norm"),
)  # fmt: skip
MOST_METRICS = 12
LONGEST = 36
"""Letters of a name."""


@dataclass(frozen=True)
class OwnValue:
    """One thing, its newest value in words, and the step it was said at."""

    name: str
    value: str
    step: int | None
    note: str = ""


def own_values(snapshot: Snapshot) -> list[OwnValue]:
    """What the loop reports: of steps, validations, its own metrics and knobs; what it never said is left out."""
    if not snapshot.own_loop:
        return []
    measured = ((name, newest(snapshot, signal)) for name, signal in REPORTED)
    found = [OwnValue(name, words.number(one.value), one.step) for name, one in measured if one.value is not None]
    validation = snapshot.latest(ValidationMeasured)
    if validation is not None:
        found.append(OwnValue("Validation loss", words.number(validation.loss), validation.step))
        if validation.accuracy is not None:
            found.append(OwnValue("Validation accuracy", words.percent(validation.accuracy), validation.step))
    said = [(name, table) for name, table in snapshot.side.metrics.items() if table.length]
    for name, table in said[:MOST_METRICS]:
        found.append(OwnValue(words.short(name, LONGEST), words.number(table.last("value")), int(table.last("step"))))
    if (more := len(said) - MOST_METRICS) > 0:
        found.append(OwnValue(f"and {words.several(more, 'metric')} more", "", None, "on the Health page"))
    for knob in knobs(snapshot):
        bounds = f"knob, {words.number(knob.low)} to {words.number(knob.high)}"
        found.append(OwnValue(words.short(knob.label, LONGEST), words.number(knob.value), None, bounds))
    return found
