"""A run as text, in the format of the document's appendix ("Example Training Session"). Pure: rows -> lines.

Only measured values stand in it: what was not measured is left out of its line, and an estimate says that it is one.
"""

import math
from collections.abc import Iterable, Iterator

import msgspec

from trainer_core.cli.output import figure
from trainer_core.cli.progress import event_line
from trainer_core.cli.statistics import final_statistics
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import (
    AttemptStarted,
    CorrectionApplied,
    PhaseChanged,
    PredictedStretch,
    PredictionEnded,
    ProgressCompared,
    Record,
    Row,
    RunStarted,
    StepRecord,
    ValidationMeasured,
)
from trainer_core.telemetry.report import Report

TITLES = {Phase.WARMUP: "WARMUP", Phase.FULL: "FULL TRAIN", Phase.PREDICT: "PREDICT", Phase.CORRECT: "CORRECT"}
STEPS_SHOWN = 5
"""Step lines of one phase."""
HEAD, TAIL = 10, 4
"""Phases printed at the beginning and at the end; those between are counted."""


class Stay(msgspec.Struct):
    """One stay in a phase: its records in order, its steps thinned once it is over, and where it led."""

    phase: Phase
    cycle: int
    first: int
    last: int
    records: list[Record]
    next_phase: Phase | None = None
    cut: bool = False
    """Ended by a rollback or a resume, not by a transition."""
    similarity: float | None = None
    """The run's similarity threshold."""
    own_loop: bool = False
    """A loop that a Monitor watches: its steps are recorded as FULL, and it has no phases."""


def session_log(rows: Iterable[Row], report: Report, everything: bool = False) -> str:
    """The whole text: phases with their steps and events, then the final statistics."""
    stays = list(stays_of(rows))
    blocks = ["\n".join(block(stay)) for stay in stays]
    if not everything and len(blocks) > HEAD + TAIL + 1:
        left_out = len(blocks) - HEAD - TAIL
        blocks[HEAD:-TAIL] = [f"[{left_out} more phases; --all prints them]"]
    return "\n\n".join([*blocks, "\n".join(final_statistics(report))])


def stays_of(rows: Iterable[Row]) -> Iterator[Stay]:
    """The stays in phases, in order; a rollback or resume begins a new one."""
    stay: Stay | None = None
    similarity: float | None = None
    own_loop = False
    waiting: list[Record] = []  # for the next stay; before the first step nothing says which phase it is
    for row in rows:
        record = row.record
        if isinstance(record, RunStarted):
            similarity, own_loop = _similarity(record), record.own_loop
        begun = _begun(stay, record)
        if begun is not None:
            if stay is not None:
                stay.next_phase = begun.phase
                yield thinned(stay)
            stay = begun
            stay.similarity, stay.own_loop = similarity, own_loop
            stay.records, waiting = waiting, []
        if isinstance(record, StepRecord | PredictedStretch) and stay is not None:
            stay.last = record.step
        if isinstance(record, AttemptStarted) and stay is not None:
            stay.cut = True
        (waiting if stay is None or _belongs_to_the_next(stay, record) else stay.records).append(record)
    if stay is not None:
        yield thinned(stay)


def _begun(stay: Stay | None, record: Record) -> Stay | None:
    """The stay that ``record`` begins, or None."""
    match record:
        case PhaseChanged():
            return Stay(record.to_phase, record.cycle, record.step, record.step, [])
        case StepRecord() if stay is None or stay.cut or record.phase is not stay.phase:
            return Stay(record.phase, record.cycle, record.step, record.step, [])
        case PredictedStretch() if stay is None or stay.cut or stay.phase is not Phase.PREDICT:
            return Stay(Phase.PREDICT, record.cycle, record.first_step, record.step, [])
        case _:
            return None


def _belongs_to_the_next(stay: Stay, record: Record) -> bool:
    """A correction is computed at the end of PREDICT and is what CORRECT is about."""
    return isinstance(record, CorrectionApplied) and stay.phase is Phase.PREDICT


def _similarity(record: RunStarted) -> float | None:
    value = record.config.get("predictor_config", {}).get("similarity_threshold")
    return float(value) if isinstance(value, int | float) else None


def thinned(stay: Stay) -> Stay:
    """With at most STEPS_SHOWN step records, the first and the last among them; every event is kept."""
    at = [i for i, record in enumerate(stay.records) if isinstance(record, StepRecord)]
    if len(at) > STEPS_SHOWN:
        chosen = {at[round(i * (len(at) - 1) / (STEPS_SHOWN - 1))] for i in range(STEPS_SHOWN)}
        dropped = set(at) - chosen
        stay.records = [record for i, record in enumerate(stay.records) if i not in dropped]
    return stay


def block(stay: Stay) -> Iterator[str]:
    """Heading, rule, step and event lines, check mark."""
    span = f"{stay.first}-{stay.last}" if stay.last > stay.first else f"{stay.first}"
    cycle = "" if stay.phase is Phase.WARMUP else f" (Cycle {stay.cycle})"
    heading = f"Step {span}: " + ("TRAINING" if stay.own_loop else f"{TITLES[stay.phase]}{cycle}")
    yield heading
    yield "─" * len(heading)
    width = len(str(stay.last))
    for record in stay.records:
        yield from lines(record, stay, width)
    if stay.next_phase is not None and not stay.cut:
        yield closing(stay)


def lines(record: Record, stay: Stay, width: int) -> Iterator[str]:
    """What one record says, if anything."""
    match record:
        case StepRecord():
            yield step_line(record, width)
        case PredictedStretch():
            first, last = (figure(record.expected_loss[i], ".3f") for i in (0, -1))
            yield (
                f"Steps {record.first_step}-{record.last_step} | not measured (pred: {first} to {last})"
                + _field("Conf", record.confidence, ".2f")
            )
        case PredictionEnded(kept=True):
            change = _change(record.loss_before, record.loss_after)
            yield f"✓ Prediction kept | {record.steps} steps{change}"
        case PredictionEnded():
            yield f"✗ Prediction undone | {record.because}"
        case ProgressCompared():
            pause = f"pause for {record.paused_steps} full steps"
            yield f"Progress per cost: {record.with_predictions:.3g} with, {record.without:.3g} without"
            yield f"Predictions {pause if record.paused_steps else 'go on'}"
        case CorrectionApplied():
            threshold = "" if stay.similarity is None else f" (similarity > {stay.similarity:g})"
            yield f"Residuals selected: {record.similar} of {record.history}{threshold}"
            if record.magnitude is not None:
                yield f"Correction magnitude: {record.magnitude:.3g}"
            yield f"Correction {'applied' if record.applied else 'not applied'}: {record.because}"
        case ValidationMeasured():
            accuracy = _field("Accuracy", record.accuracy, ".1%")
            yield f"Step {record.step:>{width}} | Loss: {figure(record.loss, '.3f')} (validation){accuracy}"
        case _:
            said = event_line(record)
            if said is not None:
                yield f"! {said}"


def step_line(record: StepRecord, width: int) -> str:
    """One measured step, with the columns the document gives its phase."""
    begin = f"Step {record.step:>{width}}" + _field("Loss", record.loss, ".3f")
    match record.phase:
        case Phase.WARMUP:
            return begin + _field("Grad", record.grad_norm, ".2f") + _field("LR", record.learning_rate, ".2e")
        case Phase.FULL:
            return begin + _field("Grad", record.grad_norm, ".2f") + _field("Confidence", record.confidence, ".2f")
        case Phase.PREDICT:
            return begin + _predicted(record) + _field("Conf", record.confidence, ".2f")
        case Phase.CORRECT:
            return begin + _field("Grad", record.grad_norm, ".2f")


def _predicted(record: StepRecord) -> str:
    """The predicted loss and its signed error, (predicted - actual) / actual as in the document's log."""
    if record.predicted_loss is None or not record.loss or not math.isfinite(record.loss):
        return ""
    error = (record.predicted_loss - record.loss) / abs(record.loss)
    return f" (pred: {figure(record.predicted_loss, '.3f')}) | Δ: {error:+.1%}"


def closing(stay: Stay) -> str:
    """The check mark of a finished stay."""
    steps = [record for record in stay.records if isinstance(record, StepRecord)]
    last = steps[-1] if steps else None
    match stay.phase:
        case Phase.WARMUP:
            ema, grad = (last.loss_ema, last.grad_norm_baseline) if last else (None, None)
            return "✓ Warmup complete" + _field("Loss EMA", ema, ".3f") + _field("Grad baseline", grad, ".2f")
        case Phase.FULL:
            ready = " | Predictor ready" if stay.next_phase is Phase.PREDICT else f" | Next phase: {stay.next_phase}"
            return "✓ Full train complete" + ready + _field("Confidence", last.confidence if last else None, ".2f")
        case Phase.PREDICT if stay.next_phase is Phase.CORRECT:
            errors = [s.prediction_error for s in steps if s.prediction_error is not None]
            mean = sum(errors) / len(errors) if errors else None
            return f"✓ Predict complete | {stay.last - stay.first + 1} steps" + _field("Avg error", mean, ".2%")
        case Phase.PREDICT:
            return f"✗ Predict ended early | Next phase: {stay.next_phase}"
        case Phase.CORRECT:
            return f"✓ Correction complete | Next phase: {stay.next_phase}"


def _field(name: str, value: float | None, form: str) -> str:
    if value is None:
        return ""
    return f" | {name}: {figure(value, form) if form.endswith('f') else format(value, form)}"


def _change(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return ""
    return f" | Loss: {figure(before, '.3f')} -> {figure(after, '.3f')}"
