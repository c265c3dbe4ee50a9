"""One record as one line for people who watch. Pure: no clock, no file. What was not measured is left out."""

from trainer_core.cli.progress import event_line
from trainer_core.spec.records import (
    AlertResolved,
    Annotated,
    CheckpointSaved,
    CommandChanged,
    CorrectionApplied,
    KnobDeclared,
    MetricsMeasured,
    PhaseChanged,
    PredictedStretch,
    PredictionEnded,
    Record,
    RunEnvironment,
    RunStarted,
    RunState,
    StepRecord,
    SystemMeasured,
    ValidationMeasured,
)
from trainer_core.telemetry.report import spoken

_GIB = float(1 << 30)


def line(record: Record, phases: bool = True) -> str | None:
    """What ``record`` says, or None for what only programs read.

    ``phases``: whether the run has any; a loop that a Monitor watches has none.
    """
    match record:
        case StepRecord():
            return step_line(record, phases)
        case MetricsMeasured(step=step):
            values = "  ".join(f"{name} {value:.4g}" for name, value in record.values.items())
            return f"step {step}  {values}"
        case SystemMeasured():
            return system_line(record)
        case RunEnvironment():
            return environment_line(record)
        case KnobDeclared():
            return f"step {record.step}: knob {record.name} = {record.value:g}, {record.low:g} to {record.high:g}"
        case PredictedStretch(first_step=first, last_step=last):
            loss = f"{record.expected_loss[0]:.4g} to {record.expected_loss[-1]:.4g}"
            return f"steps {first} to {last}  PREDICT  not measured, expected loss {loss}"
        case RunStarted():
            again = f", resumed from {record.resumed_from}" if record.resumed_from else ""
            of = f" of {record.total_steps}" if record.total_steps is not None else ""
            return f"run of {record.task} at step {record.step}{of} on {record.device}, process {record.pid}{again}"
        case RunState(state=state):
            return f"step {record.step}: {state} ({record.because})"
        case PhaseChanged():
            why = "; ".join(record.because)
            return f"step {record.step}: {record.from_phase} -> {record.to_phase} ({why})"
        case PredictionEnded(kept=True):
            return f"step {record.step}: prediction kept ({record.steps} steps; {record.because})"
        case CorrectionApplied():
            did = "applied" if record.applied else "not applied"
            return f"step {record.step}: correction {did} ({record.because})"
        case ValidationMeasured():
            accuracy = "" if record.accuracy is None else f", accuracy {record.accuracy:.1%}"
            return f"step {record.step}: validation loss {record.loss:.4g}{accuracy}"
        case AlertResolved():
            return f"step {record.step}: resolved: {record.message}"
        case CheckpointSaved():
            return f"step {record.step}: checkpoint {record.name} saved ({record.because})"
        case Annotated():
            return f"step {record.step}: note by {record.actor}: {record.text}"
        case CommandChanged() if not record.state.final:
            return f"step {record.step}: {spoken(record)} {record.state} by {record.by}"
        case _:
            return event_line(record)


def step_line(record: StepRecord, phases: bool = True) -> str:
    """``step 120  FULL  loss 1.234  predicted 1.25  gradient 0.9  confidence 0.91  rate 0.0001``."""
    values = (
        ("loss", record.loss),
        ("predicted", record.predicted_loss),
        ("gradient", record.grad_norm),
        ("confidence", record.confidence),
        ("rate", record.learning_rate),
    )
    measured = [f"{name} {value:.4g}" for name, value in values if value is not None]
    return "  ".join([f"step {record.step}", *([f"{record.phase:<7}"] if phases else []), *measured])


def system_line(record: SystemMeasured) -> str:
    """``system  CPU 0.98 cores  process 1.2 GiB  memory 5.1 of 16.0 GiB  disk 40.2 GiB free  GPU 0 ...``."""
    parts = ["system"]
    if record.cpu is not None:
        parts.append(f"CPU {record.cpu:.2f} cores")
    if record.rss is not None:
        parts.append(f"process {record.rss / _GIB:.1f} GiB")
    if record.memory_used is not None and record.memory_total is not None:
        parts.append(f"memory {record.memory_used / _GIB:.1f} of {record.memory_total / _GIB:.1f} GiB")
    if record.disk_free is not None:
        parts.append(f"disk {record.disk_free / _GIB:.1f} GiB free")
    for gpu in record.gpus:
        said = [f"GPU {gpu.index}"]
        said += [f"{gpu.utilisation:.0%}"] if gpu.utilisation is not None else []
        said += [f"{gpu.memory_used / _GIB:.1f} GiB"] if gpu.memory_used is not None else []
        said += [f"{gpu.temperature:.0f} °C"] if gpu.temperature is not None else []
        said += [f"{gpu.power:.0f} W"] if gpu.power is not None else []
        parts.append(" ".join(said))
    return "  ".join(parts)


def environment_line(record: RunEnvironment) -> str:
    """Command line, host and commit."""
    commit = f", commit {record.git_commit[:12]}" if record.git_commit else ""
    dirty = " with changes" if record.git_dirty else ""
    return f"started as {' '.join(record.command_line)} on {record.host}, python {record.python}{commit}{dirty}"
