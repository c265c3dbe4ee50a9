"""Losses in evaluation mode, for paired tests: no gradient, no dropout, no running statistics touched. Decides nothing.

A test needs the losses of some samples, not of all: ``probe_share`` of the batch, its first samples, at least 8. That
the losses of a part are those of its samples in the whole is not assumed but seen, at the first measurement: a loss
that compares samples with each other, or a batch that cannot be cut, keeps its batches whole.

Both sides of a test draw the same random numbers, where a loss draws any in evaluation mode (a noise level, a mask):
those of the batch's number. What training draws is not moved by a test. That, too, is seen at the first measurement.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trainer_core.engine.randomness import draw_again, drawn, the_same
from trainer_core.learning.loss import Batch, batch_size

if TYPE_CHECKING:
    from trainer_core.engine.engine import Engine

LEAST = 8
"""Samples below which the standard error of a mean is itself too uncertain."""


class Measuring:
    """Measures an engine's batches, and counts in ``engine.forwards`` what that took, in passes over a whole batch."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._evaluating = False

    def samples(self, batch: Batch) -> Tensor:
        """Losses (n,) of the samples of ``batch`` that tests compare; of its pieces, where the loss is a mean."""
        engine, size = self._engine, batch_size(batch) or 0
        if engine.separable is None:
            whole_N = self._losses(batch)
            kept = self.kept(batch)
            scale = _scale(whole_N)
            if kept < size and scale is not None:  # a broken batch says nothing of the loss
                one_each = whole_N.numel() == size
                part = engine.loss.first(batch, kept, size)
                engine.separable = one_each and self._agrees(part, whole_N[:kept], scale)
            return self.compared(batch, whole_N)
        kept = self.kept(batch)
        if kept < size:
            part_N = self._losses(engine.loss.first(batch, kept, size), kept / size)
            if part_N.numel() == kept:
                return part_N
            engine.separable = False  # some samples have no loss
        return self._losses(batch)

    def compared(self, batch: Batch, whole_N: Tensor) -> Tensor:
        """Of the losses of a whole batch, however many it has, those that tests compare."""
        return whole_N[: self.kept(batch)] if self._engine.separable and batch_size(batch) else whole_N

    def kept(self, batch: Batch) -> int:
        """Samples of ``batch`` that tests compare; all, where it stays whole."""
        engine, size = self._engine, batch_size(batch) or 0
        if engine.separable is False or (engine.separable is None and not engine.loss.per_sample):
            return size
        return min(size, max(LEAST, math.ceil(engine.config.hybrid_trainer_config.probe_share * size)))

    def left_out(self, batch: Batch) -> int:
        """Samples of ``batch`` that probes do not compare."""
        return (batch_size(batch) or 0) - self.kept(batch) if self._engine.separable else 0

    def rest(self, batch: Batch) -> Tensor:
        """Losses (left_out,) of the samples that probes do not compare."""
        size, left = batch_size(batch) or 0, self.left_out(batch)
        if not left:
            return torch.empty(0, device=self._engine.parameters.device)
        return self._losses(self._engine.loss.last(batch, left, size), left / size)

    @contextmanager
    def mode(self) -> Iterator[None]:
        """The model in evaluation mode, and as it was afterwards; around several measurements it is set once."""
        if self._evaluating:
            yield
            return
        training = [m for m in self._engine.model.modules() if m.training]
        self._engine.model.eval()
        self._evaluating = True
        try:
            yield
        finally:
            self._evaluating = False
            for module in training:
                module.training = True

    def _losses(self, batch: Batch, share: float = 1.0) -> Tensor:
        engine, device = self._engine, self._engine.parameters.device
        engine.forwards += share
        if engine.draws:
            with the_same(engine.batches, device):
                return self._measured(batch)
        if engine.draws is not None:
            return self._measured(batch)
        before = drawn(device)
        losses_N = self._measured(batch)
        engine.draws = drawn(device) != before
        if not engine.draws:
            return losses_N
        draw_again(device, before)
        return self._losses(batch, share)

    def _measured(self, batch: Batch) -> Tensor:
        engine = self._engine
        with torch.no_grad(), self.mode(), engine.precision.forward():
            return engine.loss.samples(engine.model, batch, engine.config.training.accumulate)

    def _agrees(self, part: Batch, expected_N: Tensor, scale: float) -> bool:
        """``scale``: how large the losses of the whole batch are."""
        try:
            losses_N = self._losses(part, 0.0)
        except (RuntimeError, IndexError, ValueError, AssertionError, KeyError, TypeError):
            return False
        if losses_N.shape != expected_N.shape:
            return False
        return bool(torch.allclose(losses_N, expected_N, rtol=1e-2, atol=1e-2 * scale, equal_nan=True))


def _scale(losses_N: Tensor) -> float | None:
    """How large losses are that are finite; None where none is."""
    known_N = losses_N[losses_N.isfinite()]
    return float(known_N.abs().mean()) if known_N.numel() else None
