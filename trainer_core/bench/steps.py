"""What one full step costs beside a plain one. Races nobody."""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from trainer_core.bench.arms import Hybrid, plain_step
from trainer_core.bench.race import Workload
from trainer_core.bench.results import Overhead
from trainer_core.learning.optimizers import make_optimizer

_SETTLE = 20
"""Pairs of steps that are not counted: caches and allocator."""


def measure_overhead(pairs: int, clock: Callable[[], float] = time.perf_counter) -> Overhead:
    """Paired step times on code_lm: a plain loop and a locked HybridTrainer in turn, on the same batch."""
    work = Workload("code_lm")
    config = work.config(0, {})
    task = work.task(config)
    torch.manual_seed(0)
    model = task.model()
    optimizer = make_optimizer(config, model)
    arm = Hybrid(task, config, False, 1e9, 2, locked=True)
    try:
        times: list[tuple[float, float]] = []
        settle = min(_SETTLE, pairs)
        for index in range(settle + pairs):
            batch = task.batch(index)
            turns: list[Callable[[], object]] = [
                partial(plain_step, task, model, optimizer, batch),
                partial(arm.step, batch, 0.5),
            ]
            taken = [0.0, 0.0]
            for which in (0, 1) if index % 2 else (1, 0):
                start = clock()
                turns[which]()
                taken[which] = clock() - start
            times.append((taken[0], taken[1]))
    finally:
        arm.close()
    plain, hybrid = zip(*times[settle:], strict=True)
    plain_ms, hybrid_ms = 1e3 * statistics.median(plain), 1e3 * statistics.median(hybrid)
    paired = statistics.median(h / p for p, h in times[settle:])
    return Overhead(pairs, plain_ms, hybrid_ms, hybrid_ms / plain_ms, paired)
