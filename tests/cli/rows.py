"""A small invented run as rows, for the tests of what is computed from rows. Times and losses are round numbers."""

from collections.abc import Iterator

from trainer_core.spec.commands import CommandState, ForcePhase, Refusal, Rollback
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import (
    AlertRaised,
    AttemptStarted,
    CommandChanged,
    CorrectionApplied,
    PhaseChanged,
    PredictedStretch,
    PredictionEnded,
    Record,
    Row,
    RunStarted,
    RunState,
    StepRecord,
    ValidationMeasured,
)
from trainer_core.spec.severity import Severity


def numbered(records: list[tuple[float, int, Record]]) -> Iterator[Row]:
    """(time, attempt, record) -> rows with seq from 1."""
    for seq, (time, attempt, record) in enumerate(records, start=1):
        yield Row(seq, time, attempt, record)


def started(step: int = 0) -> RunStarted:
    """The first record of a process."""
    return RunStarted(
        step=step,
        run_id="r1",
        task="digits",
        config={"predictor_config": {"similarity_threshold": 0.7}},
        layers=("w",),
        parameters=10,
        total_steps=12,
        device="cpu",
        versions={},
        pid=1,
    )


def measured(step: int, phase: Phase, loss: float, backward: int, seconds: float = 0.1, **more: float) -> StepRecord:
    """One measured step."""
    return StepRecord(
        step=step,
        batch=step,
        phase=phase,
        cycle=0 if phase is Phase.WARMUP else 1,
        step_in_phase=1,
        phase_budget=None,
        loss=loss,
        step_seconds=seconds,
        backward_passes=backward,
        **more,
    )


def changed(step: int, before: Phase, after: Phase, because: str) -> PhaseChanged:
    """One transition."""
    return PhaseChanged(step, before, after, (because,), cycle=1, budget=None)


def command(state: CommandState, step: int, **more: object) -> CommandChanged:
    """One transition in the life of a force-full command."""
    return CommandChanged(
        step=step,
        phase=Phase.FULL,
        command_id="force-full-1",
        command=ForcePhase(Phase.FULL),
        state=state,
        actor="operator",
        state_rev=1,
        **more,  # type: ignore[arg-type]
    )


def one_cycle() -> list[Row]:
    """WARMUP 1-3, FULL 4-5, PREDICT 6-9 (two measured, a stretch of two), CORRECT 10; then a rollback to 5, FULL 6."""
    w, f, p, c = Phase.WARMUP, Phase.FULL, Phase.PREDICT, Phase.CORRECT
    records: list[tuple[float, int, Record]] = [
        (0.0, 0, started()),
        (0.0, 0, RunState(0, "running", "started")),
        *((float(s), 0, measured(s, w, 3.0 - s / 10, s, grad_norm=2.0, learning_rate=1e-4)) for s in (1, 2, 3)),
        (3.0, 0, changed(4, w, f, "warmup_done (3 >= 3)")),
        (4.0, 0, measured(4, f, 2.5, 4, grad_norm=1.5, confidence=0.5)),
        (5.0, 0, measured(5, f, 2.4, 5, grad_norm=1.4, confidence=0.9)),
        (5.0, 0, changed(6, f, p, "confident (0.90 > 0.85)")),
        (6.0, 0, measured(6, p, 2.0, 5, 0.02, predicted_loss=2.02, prediction_error=0.01, confidence=0.9)),
        (7.0, 0, measured(7, p, 1.9, 5, 0.02, predicted_loss=1.881, prediction_error=0.01, confidence=0.9)),
        (8.0, 0, PredictedStretch(9, 8, 9, 7, 1, (1.8, 1.7), (1.7, 1.6), (1.9, 1.8), 0.1, 0.9, 0.01, 5)),
        (8.0, 0, changed(10, p, c, "horizon_reached (4 >= 4)")),
        (9.0, 0, CorrectionApplied(10, 1, 5, 2, (), 0.032, 0.01, True, "the probe says better")),
        (9.0, 0, measured(10, c, 1.6, 6, grad_norm=1.2)),
        (9.0, 0, PredictionEnded(10, 1, True, 4, "kept", 2.4, 1.6, 0.9, 0.01)),
        (9.0, 0, ValidationMeasured(10, 1.7, 0.9, 0.1)),
        (9.0, 0, AlertRaised(10, "a1", "grad-high", Severity.WARNING, "grad_norm", 12.0, 10.0, "gradients explode")),
        (9.0, 0, command(CommandState.ACCEPTED, 10)),
        (9.0, 0, command(CommandState.APPLIED, 10, before="CORRECT", after="FULL")),
        (10.0, 1, AttemptStarted(5, 1, 0, 10, "step-5", "operator asked")),
        (
            10.0,
            1,
            CommandChanged(
                5,
                Phase.FULL,
                "rollback-1",
                Rollback(),
                CommandState.REJECTED,
                "operator",
                1,
                refusal=Refusal.PRECONDITION,
                detail="there is no checkpoint",
            ),
        ),
        (11.0, 1, measured(6, f, 2.3, 7, grad_norm=1.3, confidence=0.4)),
        (12.0, 1, RunState(6, "finished", "all steps done")),
    ]
    return list(numbered(records))
