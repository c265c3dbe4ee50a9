"""One record of every kind, with values that formats get wrong: NaN beside None, infinities, -0.0, large integers."""

import math

from trainer_core.spec.commands import CommandState, Rollback, ScaleLearningRate, SetKnob, SetThreshold
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import (
    AlertRaised,
    AlertResolved,
    Annotated,
    AttemptStarted,
    CalibrationMeasured,
    Checklist,
    ChecklistItem,
    CheckpointSaved,
    CheckpointSkipped,
    CommandChanged,
    CorrectionApplied,
    Explained,
    GuardLine,
    HealthMeasured,
    KnobDeclared,
    Lost,
    MetricsMeasured,
    PhaseChanged,
    PredictedStretch,
    PredictionEnded,
    PredictionProbed,
    ProgressCompared,
    Record,
    ReliabilityBin,
    ResidualWeight,
    RunEnvironment,
    RunStarted,
    RunState,
    StepRecord,
    SystemMeasured,
    ValidationMeasured,
)
from trainer_core.spec.severity import Severity
from trainer_core.spec.surroundings import GpuMeasured


def step_record(step: int, loss: float | None = 0.5, **changes: object) -> StepRecord:
    """A plain FULL step."""
    fields: dict[str, object] = {
        "step": step,
        "batch": step,
        "phase": Phase.FULL,
        "cycle": 0,
        "step_in_phase": step,
        "phase_budget": None,
        "loss": loss,
        "backward_passes": step,
    }
    return StepRecord(**(fields | changes))  # type: ignore[arg-type]


STRANGE_STEP = step_record(
    2**40,
    loss=math.nan,
    loss_ema=None,
    loss_sigma=math.inf,
    loss_deviation=-math.inf,
    grad_norm=-0.0,
    grad_variance=5e-324,
    learning_rate=0.1,
    sign_changes=3,
    phase_budget=40,
    layer_grad_norms=(1.0, math.nan, math.inf, 0.5),
)

ONE_OF_EACH: tuple[Record, ...] = (
    RunStarted(0, "r1", "digits", {"training": {"seed": 3, "x": None}}, ("a", "b"), 10, 100, "cpu", {"torch": "2"}, 7),
    RunState(0, "running", "begins"),
    step_record(1),
    STRANGE_STEP,
    step_record(2, layer_grad_norms=()),
    PredictedStretch(9, 3, 9, 3, 1, (0.5, 0.4), (0.4, 0.3), (0.6, math.nan), 0.1, None, 0.02, 3),
    PhaseChanged(10, Phase.FULL, Phase.PREDICT, ("confident (0.91 > 0.85)",), 1, 40),
    Explained(10, Phase.FULL, (GuardLine(Phase.PREDICT, "confident", False, "0.1 > 0.85"),)),
    PredictionProbed(10, 1, 20, 0.5, 0.4, 0.1, 0.01, 10.0, 0.9, True, False, 0.01),
    PredictionEnded(20, 1, True, 10, "horizon reached", 0.5, 0.4, 0.9, None),
    CalibrationMeasured(20, 1, 0.01, (*[ReliabilityBin(0, 0, None)] * 9, ReliabilityBin(1, 1, 0.9))),
    ProgressCompared(20, 0.002, 0.001, 1.5, 0, 0.01),
    CorrectionApplied(21, 1, 8, 2, (ResidualWeight(4, 0.9, 0.6),), 0.1, None, False, "nothing to probe"),
    ValidationMeasured(21, math.nan, None, 0.1),
    AlertRaised(22, "a1", "grad_norm", Severity.CRITICAL, "grad_norm", math.nan, 100.0, "not a number"),
    AlertResolved(23, "a1", "grad_norm", "healthy again"),
    AlertRaised(
        23,
        "a2",
        "plateau",
        Severity.WARNING,
        "steps_without_gain",
        501.0,
        500.0,
        "flat",
        "loss_plateau",
        (ScaleLearningRate(2.0), Rollback()),
        "a local minimum",
        "a learning rate warmup",
    ),
    Checklist(23, "warmup", (ChecklistItem("baseline", True, "1.5"), ChecklistItem("predictor", None, "silent"))),
    CommandChanged(
        24, None, "c" * 8, SetThreshold("confidence_threshold", 0.9), CommandState.APPLIED, "operator", 1, "0.85", "0.9"
    ),
    CheckpointSaved(25, "step-25", 100, True, "asked for", 0.1),
    CheckpointSkipped(25, "step-20", "damaged"),
    AttemptStarted(20, 1, 0, 25, "step-20", "rollback"),
    Annotated(26, "größer ✓", "operator"),
    Lost(27, 1, 2, 2),
    KnobDeclared(27, "dropout", 0.0, 0.5, 0.1, "share", "Dropout of the last layer."),
    HealthMeasured(27, {"full_share": 0.5, "implied_rate": math.nan}),
    MetricsMeasured(27, {"accuracy": 0.5, "größe": math.nan}),
    RunEnvironment(
        27, ("train.py", "--lr", "1"), "/w", "h", "Linux 6", "3.12", "cpu", {"torch": "2"}, 2, "c0ffee", True
    ),
    SystemMeasured(28, 0.9, 0.5, 2**33, 2**34, 2**35, 2**40, 2**41, (GpuMeasured(0, "H", 0.9, 1, 2, 60.0, None),)),
    CommandChanged(28, None, "k" * 8, SetKnob("dropout", 0.2), CommandState.APPLIED, "operator", 2, "0.1", "0.2"),
)
