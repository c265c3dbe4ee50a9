"""A small real training run in memory: engine and session on a model of a few hundred weights, with a list as sink."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer_core.engine.checkpoints import Checkpoints
from trainer_core.engine.engine import Engine
from trainer_core.engine.session import Session
from trainer_core.learning.predictors import Predictor
from trainer_core.spec.commands import AcceptedCommand, Command, CommandRequest, CommandState
from trainer_core.spec.loading import resolve
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import AttemptStarted, CommandChanged, PredictedStretch, Record, StepRecord

T = TypeVar("T")
Batch = tuple[Tensor, Tensor]

NEEDS_MUON = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came with torch 2.9")
EAGER: dict[str, Any] = {
    "policy": "document",
    "warmup_steps": 1,
    "warmup_stability": 10.0,
    "full_steps": 4,
    "max_predict_steps": 6,
    "min_predict_steps": 6,
    "correct_steps": 2,
    "confidence_threshold": 0.0,
    "divergence_threshold": 100.0,
    "divergence_window": 0,
    "prediction_error_threshold": 100.0,
    "update_vanishing_factor": 0.0,
    "max_sign_changes": 10,
    "checkpoint_every": 0,
    "validate_every": 0,
}
"""Short phases and no doubt: WARMUP 1-5 (it gives up waiting), FULL 6-9, PREDICT 10-15, CORRECT 16-17, and so on."""


def teacher() -> Tensor:
    """The linear rule that labels the inputs."""
    return torch.randn(8, 3, generator=torch.Generator().manual_seed(99))


def batch_of(index: int, scale: float = 1.0) -> Batch:
    """Batch ``index``: 32 labelled points, the same at every call."""
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(1000 + index))
    return x * scale, (x @ teacher()).argmax(1)


def network(dropout: float = 0.0) -> nn.Module:
    """A classifier with one hidden layer."""
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3))


def per_sample(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of every sample."""
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


class Rig:
    """One process's stretch of a run. ``scales``: batch index -> factor on its inputs (NaN poisons it)."""

    def __init__(
        self,
        folder: Path,
        *,
        steps: int = 200,
        model: nn.Module | None = None,
        dropout: float = 0.0,
        optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None,
        loss: Callable[..., Tensor] = per_sample,
        scales: dict[int, float] | None = None,
        validate: Callable[[], tuple[float, float | None]] | None = None,
        wait: Callable[["Rig"], object] | None = None,
        flush: Callable[[], object] = lambda: None,
        predictor: Predictor | None = None,
        clock: Callable[[], float] = time.perf_counter,
        **settings: Any,
    ) -> None:
        torch.manual_seed(7)
        self.model = model if model is not None else network(dropout)
        make = optimizer or (lambda ps: torch.optim.AdamW(ps, 3e-3))
        self.optimizer = make(list(self.model.parameters()))
        self.records: list[tuple[Record, int]] = []
        self.scales = scales or {}
        self.queue: list[AcceptedCommand] = []
        self._ids = itertools.count()
        self.now = time.time()
        self.folder = folder
        self.engine = Engine(
            self.model,
            self.optimizer,
            loss,
            resolve(EAGER | settings).config,
            lambda record, attempt: self.records.append((record, attempt)),
            total_steps=steps,
            predictor=predictor,
            clock=clock,
        )
        self.session = Session(
            self.engine,
            Checkpoints(folder, 3, lambda name, because: self.session.skipped(name, because)),
            take_commands=self._take,
            validate=validate,
            flush_records=flush,
            wall_clock=lambda: self.now,
            wait=lambda _: wait(self) if wait else None,
        )

    def _take(self) -> list[AcceptedCommand]:
        taken, self.queue = self.queue, []
        return taken

    def begin(self) -> "Rig":
        """Say that training begins, and save the first checkpoint."""
        self.session.begin("training begins")
        return self

    def step(self) -> StepRecord:
        """One batch and the boundary after it."""
        index = self.engine.batches
        record = self.engine.step(batch_of(index, self.scales.get(index, 1.0)))
        self.session.after_step()
        return record

    def until(self, done: Callable[[], bool], most: int = 400) -> "Rig":
        """Step until ``done``; fails after ``most`` batches."""
        for _ in range(most):
            if done():
                return self
            self.step()
        raise AssertionError(f"not reached within {most} batches, at step {self.engine.step_count}")

    def until_phase(self, phase: Phase, steps: int = 1) -> "Rig":
        """Step until ``steps`` steps of ``phase`` were taken."""
        return self.until(lambda: self.engine.phase is phase and self.engine.steps_in_phase >= steps)

    def until_step(self, step: int) -> "Rig":
        """Step until nominal step ``step``."""
        return self.until(lambda: self.engine.step_count >= step)

    def finish(self) -> "Rig":
        """Run to the end and close."""
        self.until(lambda: self.session.ended is not None)
        self.session.close()
        return self

    def send(self, command: Command, **request: Any) -> str:
        """Queue a command as the agent would have accepted it now; returns its id."""
        command_id = f"command-{next(self._ids):04d}"
        accepted = CommandRequest(command_id=command_id, command=command, **request)
        self.queue.append(AcceptedCommand(accepted, "ann", self.now))
        return command_id

    def tell(self, command: Command, **request: Any) -> CommandChanged:
        """Send a command and let the boundary take it; its last record."""
        command_id = self.send(command, **request)
        self.session.commands()
        return self.life(command_id)[-1]

    def life(self, command_id: str) -> list[CommandChanged]:
        """All records of one command."""
        return [r for r in self.of(CommandChanged) if r.command_id == command_id]

    def states(self, command_id: str) -> list[CommandState]:
        """The states a command went through."""
        return [r.state for r in self.life(command_id)]

    def of(self, kind: type[T]) -> list[T]:
        """The records of one kind."""
        return [r for r, _ in self.records if isinstance(r, kind)]

    def weights(self) -> Tensor:
        """All weights and buffers as one vector, copied."""
        return torch.cat([t.detach().flatten().double() for t in self.model.state_dict().values()])


def covered(records: list[tuple[Record, int]]) -> dict[int, tuple[int, int]]:
    """Attempt -> (first, last) step; fails where steps and stretches leave a gap or overlap."""
    spans: dict[int, tuple[int, int]] = {}
    expected = 1
    for record, attempt in records:
        match record:
            case AttemptStarted(step=step):
                expected = step + 1
            case StepRecord(step=step):
                assert step == expected, f"attempt {attempt}: step {step} where {expected} was due"
                spans[attempt] = (spans.get(attempt, (step, 0))[0], step)
                expected = step + 1
            case PredictedStretch(first_step=first, last_step=last, step=step):
                assert (first, step) == (expected, last) and last >= first
                spans[attempt] = (spans.get(attempt, (first, 0))[0], last)
                expected = last + 1
            case _:
                pass
    return spans


def same(state: Any, other: Any) -> bool:
    """Whether two nested states are equal bit for bit (NaN equals NaN)."""
    if isinstance(state, Tensor):
        return torch.equal(torch.nan_to_num(state), torch.nan_to_num(other)) and state.dtype == other.dtype
    if isinstance(state, dict):
        return state.keys() == other.keys() and all(same(state[k], other[k]) for k in state)
    if isinstance(state, (list, tuple)):
        return len(state) == len(other) and all(same(a, b) for a, b in zip(state, other, strict=True))
    return bool(state == other) or (state != state and other != other)
