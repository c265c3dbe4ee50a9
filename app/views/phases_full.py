"""FULL: what a step costs and of what, how wrong the predictor is, and what its last looks found. Pure."""

import math
from dataclasses import dataclass

import numpy as np

from app.store import PHASES, Snapshot
from app.table import F64, I64
from app.views import words
from app.views.phases_machine import locked
from app.views.phases_why import predictions_begun
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import PredictionProbed, RunStarted, StepRecord

MOST = 200
"""Steps that a mean cost is of."""
LOOK_BACK = 2000
"""Steps among which they are looked for."""
LOOKS = 6
GPU_CLOCK = "By the host's clock: what a GPU is given in one part is waited for in another."
NONE_YET = "not begun yet: it follows WARMUP"
NONE_OWN = "entered {}, each time without a step of its own: the step of CORRECT was enough"


@dataclass(frozen=True)
class Part:
    """One part of a step: mean seconds, and its share of the whole."""

    label: str
    seconds: float | None
    share: float
    skipped: bool = False
    """Not run; ``share`` is what it would have taken."""


@dataclass(frozen=True)
class Full:
    """The card's content."""

    compute: list[Part]
    compute_of: str
    clock: str
    """What to know of the times; empty where they are what they seem."""
    facts: dict[str, str]
    looks: list[tuple[str, ...]]
    said: str


def rows_of(snapshot: Snapshot, phase: Phase, most: int = MOST) -> I64:
    """The newest ``most`` measured steps of a phase, among the last LOOK_BACK; rows of ``snapshot.steps``."""
    first = max(0, snapshot.steps.length - LOOK_BACK)
    return first + np.flatnonzero(snapshot.steps["phase"][first:] == PHASES.index(phase))[-most:]


def mean(values: F64) -> float | None:
    """Of what was measured; None where nothing was."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def full(snapshot: Snapshot) -> Full:
    """The FULL phase of a snapshot."""
    rows = rows_of(snapshot, Phase.FULL)
    last = snapshot.last if isinstance(snapshot.last, StepRecord) else None
    residuals = _newest(snapshot, "residuals")
    begun = predictions_begun(snapshot)
    needed = last.full_needed if last is not None and last.phase is Phase.FULL else None
    left = None if needed is None or last is None or locked(snapshot) else max(0, needed - last.step_in_phase)
    return Full(
        compute=compute(snapshot, rows),
        compute_of=f"mean of the newest {words.count(len(rows))} FULL steps" if len(rows) else "no FULL step",
        clock="" if host_clock(snapshot) else GPU_CLOCK,
        facts={
            "residuals": words.count(residuals),
            "confidence": words.number(_newest(snapshot, "confidence")),
            "error": words.number(_newest(snapshot, "relative_error")),
            "needed": f"{left:,} steps" if left is not None else words.ABSENT,
            "refusals": words.count(_newest(snapshot, "refusals")),
        },
        looks=[_look(probe, probe.step + 1 in begun) for probe in reversed(snapshot.newest(PredictionProbed, LOOKS))],
        said=_said(last, needed, bool(len(rows)), snapshot.tallies[Phase.FULL].entered),
    )


def _said(last: StepRecord | None, needed: int | None, begun: bool, entered: int) -> str:
    if not begun and entered:
        return NONE_OWN.format(f"{entered:,}×")
    if last is None or needed is None:
        return "" if begun else NONE_YET
    return f"step {last.step_in_phase:,} of {needed:,}" if last.step_in_phase <= needed else ""


def host_clock(snapshot: Snapshot) -> bool:
    """Whether the host's clock tells the parts of a step apart: it does where the host itself computes."""
    started = snapshot.latest(RunStarted)
    return started is None or started.device.startswith("cpu")


def compute(snapshot: Snapshot, rows: I64) -> list[Part]:
    """What a full step spends its time on; nothing without a step."""
    steps = snapshot.steps
    if not len(rows):
        return []
    seconds = {
        name: mean(steps[f"{name}_seconds"][rows])
        for name in ("forward", "backward", "optimizer", "predict", "predictor_train", "step")
    }
    trained = float(np.nansum(steps["predictor_train_seconds"][rows])) / len(rows)
    predict = seconds["predict"] or 0.0
    parts = {
        "forward": seconds["forward"],
        "backward": seconds["backward"],
        "optimizer": seconds["optimizer"],
        "predictor training": trained if seconds["predictor_train"] is not None else None,
        "looks, observing, undo copies": max(0.0, predict - trained) if seconds["predict"] is not None else None,
    }
    whole = seconds["step"] or sum(value or 0.0 for value in parts.values())
    return [Part(label, value, (value or 0.0) / whole if whole else 0.0) for label, value in parts.items()]


def _newest(snapshot: Snapshot, name: str) -> float | None:
    """The newest measured value of a signal among the last steps."""
    values = snapshot.steps[name][-LOOK_BACK:]
    known = np.flatnonzero(~np.isnan(values))
    return float(values[known[-1]]) if len(known) else None


def _look(probe: PredictionProbed, taken: bool) -> tuple[str, ...]:
    """Step, horizon, loss there and back, gain with its error, z, confidence, what came of it."""
    if probe.shadow:
        came = "second look at a refused one: " + ("it would have helped" if probe.better else "rightly refused")
    else:
        came = "taken" if taken else "refused"
    gain = f"{words.number(probe.gain, 2)} ± {words.number(probe.gain_se, 2)}"
    return (
        words.count(probe.step),
        words.count(probe.horizon),
        f"{words.number(probe.loss_before, 4)} → {words.number(probe.loss_after, 4)}",
        gain,
        words.ABSENT if math.isnan(probe.z) else f"{probe.z:.2f}",
        words.number(probe.confidence),
        came,
    )
