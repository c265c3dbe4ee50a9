"""One training run of the race, plain or hybrid: a step at a time, with its own clock. Knows nothing of its rivals."""

import math
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainer_core.bench.results import Point, Run
from trainer_core.hybrid_trainer import HybridTrainer
from trainer_core.learning.loss import batch_size
from trainer_core.learning.optimizers import make_optimizer
from trainer_core.learning.schedules import Schedule
from trainer_core.spec.config import Config
from trainer_core.spec.errors import UserError
from trainer_core.spec.records import CheckpointSaved, PredictionEnded, Record, StepRecord
from trainer_core.tasks import Task

FORWARD, BACKWARD = 1.0, 2.0
"""Cost units of one pass over one batch."""


def shape(share: float) -> float:
    """Factor on the learning rate after ``share`` of the budget: 5 % warmup, constant, the last 20 % down to 1 %."""
    if share < 0.05:
        return max(share / 0.05, 0.01)
    return 1.0 if share < 0.8 else max(0.01, (1.0 - share) / 0.2)


class Arm:
    """What both kinds share: budget, clock, validations."""

    def __init__(self, task: Task, config: Config, compressed: bool, budget: float, points: int) -> None:
        self.task, self.config, self.compressed, self.budget = task, config, compressed, budget
        self.spent = 0.0
        self.batches = self.backward = self.steps = 0
        self.forwards = 0.0
        """Passes over a whole batch."""
        self.failed: str | None = None
        self.points: list[Point] = []
        self.validating = 0.0
        """Seconds of all validations."""
        self._due = [0.0, *(budget * 100 ** (i / (points - 1) - 1) for i in range(points))]
        """Seconds at which to validate: 1 % of the budget to all of it, by equal factors."""

    @property
    def over(self) -> bool:
        """Whether it has had its time, or failed."""
        return self.failed is not None or self.spent >= self.budget

    def race(self, seconds: float, clock: Callable[[], float] = time.perf_counter) -> None:
        """Train for one slice of wall clock; validations on the way are not charged."""
        ends = self.spent + seconds
        while not self.over and self.spent < ends:
            if self.spent >= self._due[0]:
                self._validate(clock)
            start = clock()
            try:
                loss = self.step(self.task.batch(self.batches), self.spent / self.budget)
            except UserError as error:
                self.failed = str(error)
                return
            self.spent += max(0.0, clock() - start - self.free_seconds())
            self.batches += 1
            if not math.isfinite(loss):
                self.failed = f"the loss of step {self.steps} is {loss}"
                return
        if self.spent >= self.budget:
            self._validate(clock)

    def _validate(self, clock: Callable[[], float]) -> None:
        start = clock()
        while len(self._due) > 1 and self.spent >= self._due[0]:
            self._due.pop(0)
        model = self.model()
        model.eval()
        try:
            loss, _ = self.task.validate(model)
        finally:
            model.train()
        cost = FORWARD * self.forwards + BACKWARD * self.backward
        self.points.append(Point(self.spent, self.steps, self.backward, cost, loss))
        self.validating += clock() - start

    def step(self, batch: Any, share: float) -> float:
        """Train on a batch after ``share`` of the budget; returns its loss."""
        raise NotImplementedError

    def model(self) -> nn.Module:
        raise NotImplementedError

    def free_seconds(self) -> float:
        """Seconds of the last step that are nobody's training."""
        return 0.0

    def close(self) -> None:
        """Give back what it holds."""

    def run(self) -> Run:
        """What it did."""
        return Run(self.config.training.seed, tuple(self.points), self.batches, 0, 0, (), None, self.failed)


class Plain(Arm):
    """What a careful person writes by hand, reading the loss as any log does."""

    def __init__(self, task: Task, config: Config, compressed: bool, budget: float, points: int) -> None:
        super().__init__(task, config, compressed, budget, points)
        torch.manual_seed(config.training.seed)
        self._model = task.model()
        self._optimizer = make_optimizer(config, self._model)
        self._schedule = Schedule(self._optimizer, config)

    def model(self) -> nn.Module:
        return self._model

    def step(self, batch: Any, share: float) -> float:
        if self.compressed:
            self._schedule.scale = shape(share)
        self._schedule.apply(self.steps + 1)
        loss = plain_step(self.task, self._model, self._optimizer, batch)
        self.steps += 1
        self.forwards += 1
        self.backward += 1
        return loss


def plain_step(task: Task, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> float:
    """Forward, backward, update; returns the loss."""
    optimizer.zero_grad(set_to_none=True)
    loss = task.loss(model, batch).mean()
    loss.backward()
    optimizer.step()
    return loss.item()


class Hybrid(Arm):
    """A HybridTrainer with its journal on, in a directory that is gone afterwards. ``locked``: it never predicts."""

    def __init__(
        self, task: Task, config: Config, compressed: bool, budget: float, points: int, locked: bool = False
    ) -> None:
        super().__init__(task, config, compressed, budget, points)
        torch.manual_seed(config.training.seed)
        model = task.model()
        self._free = 0.0
        self._outcomes: list[tuple[float, bool, bool | None]] = []
        self._last: StepRecord | None = None
        with ExitStack() as opened:
            folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="bench-engine-"))
            self.trainer = HybridTrainer(
                model,
                make_optimizer(config, model),
                self._counted,
                config,
                Path(folder) / "run",
                serve=False,
                on_record=self._heard,
                plain=locked,
            )
            opened.callback(self._end)
            self._opened = opened.pop_all()

    def _counted(self, model: nn.Module, batch: Any) -> torch.Tensor:
        self.forwards += (batch_size(batch) or 0) / self.config.training.batch_size
        return self.task.loss(model, batch)

    def _heard(self, record: Record, attempt: int) -> None:
        match record:
            case CheckpointSaved():
                self._free += record.seconds
            case PredictionEnded(confidence=float(confidence)):
                self._outcomes.append((confidence, record.kept, record.better))
            case _:
                pass

    def model(self) -> nn.Module:
        return self.trainer.engine.model

    def step(self, batch: Any, share: float) -> float:
        self._free = 0.0
        if self.compressed:
            self.trainer.engine.schedule.scale = shape(share)
        self._last = self.trainer.step(batch)
        self.steps, self.backward = self.trainer.step_count, self._last.backward_passes
        return self._last.loss if self._last.loss is not None else math.nan

    def free_seconds(self) -> float:
        return self._free

    def _end(self) -> None:
        if not self.trainer.stopped:
            self.trainer.finish("measured")
        self.trainer.close()

    def close(self) -> None:
        self._opened.close()

    def run(self) -> Run:
        last = self._last
        kept, undone = (last.predictions_kept or 0, last.predictions_undone or 0) if last else (0, 0)
        return Run(
            seed=self.config.training.seed,
            points=tuple(self.points),
            batches=self.batches,
            kept=kept,
            undone=undone,
            outcomes=tuple(self._outcomes),
            brier=last.brier if last else None,
            failed=self.failed,
        )
