"""What hybrid training keeps beside plain training: every tensor, at the moments when it keeps most. Times nothing."""

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainer_core.bench.arms import Hybrid
from trainer_core.bench.race import Workload
from trainer_core.bench.results import Memory
from trainer_core.spec.errors import UserError

_SMALLEST = 1 / 1000
"""Tensors below this share of the model are no memory that anybody would miss: losses, norms, statistics."""

_EAGER = {"hybrid_trainer_config.warmup_steps": "1", "warmup_stability": "10", "confidence_threshold": "0"}
"""Predictions within a few steps, every one of them followed."""
_DOUBTFUL = {**_EAGER, "confidence_threshold": "1"}
"""Looks within a few steps, every proposal refused, some of them kept to be measured again."""


class Census:
    """Counts bytes of tensors that are neither weights, gradients, buffers, optimizer state nor batches.

    It looks whenever something is at its largest: before each forward pass (looks, predictions, verdicts, the progress
    guard), before and after each optimizer step, and when it is asked. Activations do not exist then: the pass that a
    look and a step can share is not shared here, for its activations are those of the step.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable[Tensor] = ()) -> None:
        """``batches``: plain training has their tensors too, of which tests look at a part."""
        self.most = 0
        self._batches = list(batches)
        self._model, self._optimizer = model, optimizer
        self._model_bytes = sum(p.numel() * p.element_size() for p in model.parameters())

    @property
    def models(self) -> float:
        """The most so far, in models."""
        return self.most / self._model_bytes

    def look(self, *_: Any) -> None:
        """Count now."""
        parameters = list(self._model.parameters())
        plain: list[Any] = [*self._batches, *parameters, *self._model.buffers(), *(p.grad for p in parameters)]
        plain += [value for state in self._optimizer.state.values() for value in state.values()]
        known = {t.untyped_storage().data_ptr() for t in plain if isinstance(t, Tensor)}
        held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in _tensors()}
        least = _SMALLEST * self._model_bytes
        self.most = max(self.most, sum(size for at, size in held.items() if at not in known and size >= least))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look whenever something is at its largest."""
        hooks = [
            self._model.register_forward_pre_hook(self.look),
            self._optimizer.register_step_pre_hook(self.look),
            self._optimizer.register_step_post_hook(self.look),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


@contextmanager
def only_new_tensors() -> Iterator[None]:
    """What exists already (batches, other models) is not counted inside."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _tensors() -> list[Tensor]:
    return [o for o in gc.get_objects() if type(o) is Tensor or type(o) is nn.Parameter]


def measure_memory(task_name: str, predictor: str, steps: int) -> Memory:
    """The most that is kept in ``steps`` batches where every prediction is followed, and where none is."""
    most = 0.0
    for regime in (_EAGER, _DOUBTFUL):
        try:
            most = max(most, _measured(task_name, {"predictor_config.type": predictor, **regime}, steps))
        except UserError as error:
            return Memory(task_name, predictor, None, steps, str(error))
    return Memory(task_name, predictor, most, steps, None)


def _measured(task_name: str, settings: dict[str, str], steps: int) -> float:
    work = Workload(task_name)
    config = work.config(0, {"residual_memory_mb": "0", **settings})
    task = work.task(config)
    batches = [task.batch(index) for index in range(steps)]
    with only_new_tensors():
        arm = Hybrid(task, config, False, 1e9, 2)
        try:
            parts = (part for batch in batches for part in (batch if isinstance(batch, tuple) else (batch,)))
            census = Census(arm.trainer.engine.model, arm.trainer.engine.optimizer, parts)
            arm.trainer.engine.shares = False
            with census.watching():
                for batch in batches:
                    arm.step(batch, 0.5)
                    census.look()
        finally:
            arm.close()
    return census.models
