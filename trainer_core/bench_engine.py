"""What the engine costs and what it gains, measured against a plain PyTorch loop in the same run. Changes nothing.

overhead   code_lm, prediction locked: one plain step and one hybrid step in turn, on the same batch; ratio of medians
gain       digits at a learning rate of 1e-4: cost until the plain loop's final validation loss is reached
"""

import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
import torch
from torch import nn

from trainer_core.hybrid_trainer import HybridTrainer
from trainer_core.learning.optimizers import make_optimizer
from trainer_core.spec.config import Config
from trainer_core.spec.loading import load
from trainer_core.tasks import Task, make_task, task_defaults

_CPU = torch.device("cpu")
_SETTLE = 20
"""Pairs of steps that are not counted: caches, allocator and agent start."""
OVERHEAD_GOAL = 1.05


class Overhead(msgspec.Struct, frozen=True):
    """Step times on code_lm in milliseconds; ``ratio`` is hybrid / plain."""

    pairs: int
    plain_ms: float
    hybrid_ms: float
    ratio: float
    paired_ratio: float
    """Median of the ratios within each pair: less moved by a busy machine."""
    goal: float = OVERHEAD_GOAL


class Gain(msgspec.Struct, frozen=True):
    """One seed of digits: both runs until the plain loop's final validation loss. None: not reached within its cost."""

    seed: int
    steps: int
    validation_loss: float
    plain_seconds: float
    hybrid_seconds: float | None
    hybrid_backward_passes: int | None
    hybrid_loss_at_equal_steps: float | None
    kept: int
    undone: int

    @property
    def speed_up(self) -> float | None:
        """Plain seconds / hybrid seconds, probes and telemetry charged, validation not."""
        return self.plain_seconds / self.hybrid_seconds if self.hybrid_seconds else None

    @property
    def backward_reduction(self) -> float | None:
        """Share of the plain loop's backward passes that were saved."""
        return None if self.hybrid_backward_passes is None else 1 - self.hybrid_backward_passes / self.steps


def run(quick: bool, json: bool) -> None:
    """Measure and print a table, or JSON."""
    torch.set_num_threads(1)  # as the built-in tasks train by default: small tensors gain little from more
    overhead = measure_overhead(pairs=120 if quick else 400)
    gains = [measure_gain(seed, steps=600 if quick else 1000) for seed in range(1 if quick else 3)]
    print(_as_json(overhead, gains) if json else _as_table(overhead, gains))


# -- overhead -------------------------------------------------------------------------------------------------------


def measure_overhead(pairs: int) -> Overhead:
    """Paired step times of a plain loop and of a locked HybridTrainer with telemetry and agent on."""
    off = {"checkpoint_every": "0", "validate_every": "0", "max_steps": "10000000"}
    config = load(None, None, off, task_defaults("code_lm")).config
    task = make_task("code_lm", config, None, _CPU)
    plain_model, plain_optimizer = _fresh(task, config)
    with _trainer(task, config, serve=True) as trainer:
        trainer.engine.locked = True
        times: list[tuple[float, float]] = []
        for index in range(_SETTLE + pairs):
            batch = task.batch(index)
            turns: list[Callable[[], object]] = [
                partial(_plain_step, task, plain_model, plain_optimizer, batch),
                partial(trainer.step, batch),
            ]
            taken = [0.0, 0.0]
            for which in (0, 1) if index % 2 else (1, 0):
                start = time.perf_counter()
                turns[which]()
                taken[which] = time.perf_counter() - start
            times.append((taken[0], taken[1]))
    plain, hybrid = zip(*times[_SETTLE:], strict=True)
    plain_ms, hybrid_ms = 1e3 * statistics.median(plain), 1e3 * statistics.median(hybrid)
    paired = statistics.median(h / p for p, h in times[_SETTLE:])
    return Overhead(pairs, plain_ms, hybrid_ms, hybrid_ms / plain_ms, paired)


def _plain_step(task: Task, model: nn.Module, optimizer: torch.optim.Optimizer, batch: object) -> float:
    """What a careful person writes by hand, reading the loss as any log does."""
    optimizer.zero_grad(set_to_none=True)
    loss = task.loss(model, batch).mean()
    loss.backward()
    optimizer.step()
    return loss.item()


# -- gain -----------------------------------------------------------------------------------------------------------


def measure_gain(seed: int, steps: int) -> Gain:
    """One seed of digits with the task's own configuration, plain and hybrid, from the same weights and batches."""
    off = {"checkpoint_every": "0", "validate_every": "0", "seed": str(seed), "max_steps": "10000000"}
    config = load(None, None, off, task_defaults("digits")).config
    task = make_task("digits", config, None, _CPU)
    model, optimizer = _fresh(task, config)
    start = time.perf_counter()
    for index in range(steps):
        _plain_step(task, model, optimizer, task.batch(index))
    plain_seconds = time.perf_counter() - start
    goal = _validation(task, model)

    seconds = 0.0
    reached: tuple[float, int] | None = None
    at_equal_steps: float | None = None
    with _trainer(task, config, serve=False) as trainer:
        for index in itertools.count():
            start = time.perf_counter()
            trainer.step(task.batch(index))
            seconds += time.perf_counter() - start
            loss = _validation(task, trainer.engine.model)
            if reached is None and loss <= goal:
                reached = (seconds, trainer.engine.backward_passes)
            if at_equal_steps is None and trainer.step_count >= steps:
                at_equal_steps = loss
            if (reached and at_equal_steps is not None) or index >= steps:
                break
        kept, undone = trainer.engine.predictions_kept, trainer.engine.predictions_undone
    hybrid_seconds, passes = reached or (None, None)
    return Gain(seed, steps, goal, plain_seconds, hybrid_seconds, passes, at_equal_steps, kept, undone)


def _validation(task: Task, model: nn.Module) -> float:
    model.eval()
    loss, _ = task.validate(model)
    model.train()
    return loss


def _fresh(task: Task, config: Config) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(config.training.seed)
    model = task.model()
    return model, make_optimizer(config, model)


@contextmanager
def _trainer(task: Task, config: Config, serve: bool) -> Iterator[HybridTrainer]:
    """A trainer in a directory that is gone afterwards."""
    model, optimizer = _fresh(task, config)
    with (
        tempfile.TemporaryDirectory(prefix="bench-engine-") as folder,
        HybridTrainer(model, optimizer, task.loss, config, Path(folder) / "run", serve=serve) as trainer,
    ):
        yield trainer
        trainer.finish("measured")


# -- output ---------------------------------------------------------------------------------------------------------


def _as_json(overhead: Overhead, gains: list[Gain]) -> str:
    shown = [
        msgspec.to_builtins(g) | {"speed_up": g.speed_up, "backward_reduction": g.backward_reduction} for g in gains
    ]
    return json.dumps({"threads": torch.get_num_threads(), "overhead": msgspec.to_builtins(overhead), "gain": shown})


def _as_table(overhead: Overhead, gains: list[Gain]) -> str:
    met = "met" if overhead.ratio <= overhead.goal else "missed"
    lines = [
        f"Overhead of a full step (code_lm, {overhead.pairs} pairs, {torch.get_num_threads()} thread, telemetry on)",
        f"  plain {overhead.plain_ms:.2f} ms   hybrid {overhead.hybrid_ms:.2f} ms   ratio {overhead.ratio:.3f}"
        f" (goal {overhead.goal:g}: {met})   median of paired ratios {overhead.paired_ratio:.3f}",
        "",
        f"Cost to the plain loop's validation loss (digits, learning rate 1e-4, {gains[0].steps} plain steps)",
        "  seed   loss    plain s  hybrid s  speed-up  backward passes      fewer  kept/undone  loss at equal steps",
    ]
    return "\n".join(lines + [_gain_line(g) for g in gains])


def _gain_line(g: Gain) -> str:
    equal = "-" if g.hybrid_loss_at_equal_steps is None else f"{g.hybrid_loss_at_equal_steps:.4f}"
    start = f"  {g.seed:>4}   {g.validation_loss:.4f}  {g.plain_seconds:7.2f}"
    if g.hybrid_seconds is None or g.speed_up is None or g.backward_reduction is None:
        return f"{start}  not reached within {g.steps} batches; kept/undone {g.kept}/{g.undone}; equal steps {equal}"
    passes = f"{g.hybrid_backward_passes} of {g.steps}"
    return (
        f"{start}  {g.hybrid_seconds:8.2f}  {g.speed_up:7.1f}x  {passes:>15}  {g.backward_reduction:9.1%}"
        f"  {g.kept:>5}/{g.undone:<5}  {equal:>19}"
    )
