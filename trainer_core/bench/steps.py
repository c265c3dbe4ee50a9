"""What one full step costs beside a plain one, and what hybrid training keeps in memory. Races nobody."""

import gc
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from trainer_core.bench.arms import Hybrid, plain_step
from trainer_core.bench.race import Workload
from trainer_core.bench.results import Memory, Overhead
from trainer_core.learning.optimizers import make_optimizer
from trainer_core.spec.errors import UserError

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


def measure_memory(task_name: str, predictor: str, steps: int) -> Memory:
    """Tensors alive after each of ``steps`` steps that are neither weights, gradients, buffers nor optimizer state."""
    work = Workload(task_name)
    settings = {"predictor_config.type": predictor, "residual_memory_mb": "0", **_EAGER}
    try:
        config = work.config(0, settings)
        task = work.task(config)
        batches = [task.batch(index) for index in range(steps)]
        gc.collect()
        before = set(_storages())
        arm = Hybrid(task, config, False, 1e9, 2)
    except UserError as error:
        return Memory(task_name, predictor, None, 0, str(error))
    most = 0
    try:
        engine = arm.trainer.engine
        for batch in batches:
            arm.step(batch, 0.5)
            kept = list(engine.model.parameters()) + list(engine.model.buffers())
            kept += [p.grad for p in engine.model.parameters() if p.grad is not None]
            kept += [v for s in engine.optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
            plain = {t.untyped_storage().data_ptr() for t in kept} | before
            most = max(most, sum(size for at, size in _storages().items() if at not in plain))
        model = sum(p.numel() * p.element_size() for p in engine.model.parameters())
    except UserError as error:
        return Memory(task_name, predictor, None, steps, str(error))
    finally:
        arm.close()
    return Memory(task_name, predictor, most / model, steps, None)


_EAGER = {"hybrid_trainer_config.warmup_steps": "1", "warmup_stability": "10", "confidence_threshold": "0"}
"""Predictions within a few steps: the snapshot is part of what is kept."""


def _storages() -> dict[int, int]:
    """Address -> bytes of every tensor that Python holds."""
    held = [o for o in gc.get_objects() if type(o) is torch.Tensor or type(o) is torch.nn.Parameter]
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}
