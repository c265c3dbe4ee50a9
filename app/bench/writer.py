"""``python -m app.bench.writer RUN_DIR RATE SECONDS``: a run that steps at a steady pace, with its agent. No torch."""

import contextlib
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from trainer_core.spec.config import Config
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import PhaseChanged, Record, RunStarted, StepRecord
from trainer_core.telemetry.agent_process import start_agent
from trainer_core.telemetry.reporter import Reporter
from trainer_core.telemetry.rundir import claim

LAYERS = tuple(f"layer_{i}" for i in range(24))
LENGTHS = ((Phase.FULL, 40), (Phase.PREDICT, 60), (Phase.CORRECT, 8))
WARMUP = 100


def records() -> Iterator[Record]:
    """What a run of the document's lengths says, for ever: phases, losses with noise, norms, confidence."""
    config = {key: value for key, value in msgspec.to_builtins(Config()).items() if key != "preset"}
    yield RunStarted(0, "bench", "bench", config, LAYERS, 1000, None, "cpu", {}, 1)
    step, cycle, backward, phase = 0, 0, 0, Phase.WARMUP
    for inside in range(1, WARMUP + 1):
        step, backward = step + 1, backward + 1
        yield a_step(step, cycle, inside, WARMUP, phase, backward)
    while True:
        cycle += 1
        for entered, length in LENGTHS:
            yield PhaseChanged(step + 1, phase, entered, ("because",), cycle, length)
            phase = entered
            for inside in range(1, length + 1):
                step, backward = step + 1, backward + (phase is not Phase.PREDICT)
                yield a_step(step, cycle, inside, length, phase, backward)


def a_step(step: int, cycle: int, inside: int, budget: int, phase: Phase, backward: int) -> StepRecord:
    """One step's record, as full as a trainer's."""
    noise = math.sin(step * 12.9898) * 0.1
    loss = 0.3 + 2.0 * math.exp(-step / 20_000) + noise
    predicted = loss - noise if phase is Phase.PREDICT else None
    full = phase is not Phase.PREDICT
    return StepRecord(
        step=step, batch=step, phase=phase, cycle=cycle, step_in_phase=inside, phase_budget=budget, loss=loss,
        loss_ema=loss - noise, loss_sigma=0.1, loss_deviation=noise / 0.1, predicted_loss=predicted,
        predicted_low=None if predicted is None else predicted - 0.1,
        predicted_high=None if predicted is None else predicted + 0.1,
        prediction_error=None if predicted is None else abs(noise) / loss, relative_error=abs(noise),
        confidence=0.87 + noise / 3, grad_norm=1.0 + noise if full else None, grad_norm_baseline=1.0,
        grad_param_ratio=1e-3 if full else None, grad_variance=0.01, update_norm=0.01, update_norm_baseline=0.01,
        param_norm=50.0, learning_rate=1e-4, sign_changes=1, step_seconds=0.005, forward_seconds=0.001,
        backward_seconds=0.002 if full else None, optimizer_seconds=0.001, predict_seconds=0.0001,
        backward_passes=backward, layer_grad_norms=tuple(1.0 / (i + 1) for i in range(24)) if full else None,
    )  # fmt: skip


def run(run_dir: Path, rate: float, seconds: float) -> None:
    """Step for so long; what cannot keep up is not made up for by hurrying later."""
    run_dir.mkdir(parents=True)
    with contextlib.closing(claim(run_dir)):
        reporter = Reporter(run_dir)
        agent = start_agent(run_dir)
        try:
            begin, steps = time.monotonic(), 0
            for record in records():
                if isinstance(record, StepRecord):
                    steps += 1
                    time.sleep(max(0.0, begin + steps / rate - time.monotonic()))
                    if time.monotonic() - begin > seconds:
                        break
                reporter.report(record, 0)
        finally:
            reporter.close()
            agent.close()


if __name__ == "__main__":
    run(Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
