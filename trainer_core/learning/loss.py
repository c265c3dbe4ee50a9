"""The user's loss function, called one way: per-sample values when it gives them, else a scalar. Trains nothing."""

import copy
import inspect
from collections import Counter, UserDict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trainer_core.spec.errors import UserError

Batch = Any
LossFn = Callable[..., Tensor]

_CRITERION_WORDS = {
    "input",
    "inputs",
    "output",
    "outputs",
    "logits",
    "pred",
    "preds",
    "prediction",
    "predictions",
    "y_hat",
}
_MAPPINGS = (dict, UserDict)
_CHUNKS = 8
"""Pieces a batch is cut into when the loss function only gives a mean: the pairs of the paired test."""


class Piece(NamedTuple):
    """A micro-batch."""

    batch: Batch
    share: float
    """Its samples / the batch's."""
    weight: float
    """Factor on its loss in the batch's: the share, or 1 when the criterion sums."""


class BatchLoss:
    """``loss_fn(model, batch)``, or a criterion ``loss_fn(model(inputs), targets)`` with ``batch = (inputs, targets)``.

    A criterion is an ``nn.Module`` (``nn.CrossEntropyLoss()``), a function of ``torch.nn.functional``, or a function
    whose first argument is called like a model's output (``logits``, ``outputs``, ``pred``, ...). The result is a
    scalar, or one value per sample (shape (B,)), which makes the paired test sharper.
    """

    def __init__(self, loss_fn: LossFn) -> None:
        if not callable(loss_fn):
            raise UserError(f"loss_fn = {loss_fn!r}: must be a function of (model, batch) or a criterion module")
        self._loss_fn = loss_fn
        self._criterion = _is_criterion(loss_fn)
        self._sums = getattr(loss_fn, "reduction", None) == "sum"
        self._per_sample: bool | None = None
        """Whether it gives one value per sample, as seen at its first call."""
        self._differentiates = False
        """Whether it takes gradients itself (a penalty, forces), as seen where none could be had."""

    def raw(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss as the function gives it: scalar or (B,)."""
        loss = self._called(model, batch)
        if not isinstance(loss, Tensor) or loss.dim() > 1:
            shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise UserError(f"loss_fn returned {shape}: must be a tensor of no dimension, or one value per sample")
        if not loss.is_floating_point():
            raise UserError(f"loss_fn returned a tensor of {loss.dtype}: must be floating point")
        if loss.numel() == 0:
            raise UserError("loss_fn returned no value (shape (0,)): must be one value, or one per sample")
        if self._per_sample is None:
            self._per_sample = loss.dim() == 1
        return loss if torch.is_grad_enabled() else loss.detach()

    def _called(self, model: nn.Module, batch: Batch) -> Tensor:
        if self._differentiates:
            with torch.enable_grad():
                return self._answer(model, batch)
        try:
            return self._answer(model, batch)
        except RuntimeError as error:
            if torch.is_grad_enabled() or "does not require grad" not in str(error):
                raise
        self._differentiates = True
        return self._called(model, batch)

    def _answer(self, model: nn.Module, batch: Batch) -> Tensor:
        if not self._criterion:
            return self._loss_fn(model, batch)
        inputs, targets = _inputs_and_targets(batch)
        return self._loss_fn(model(inputs), targets)

    def mean(self, model: nn.Module, batch: Batch, count: int = 1) -> Tensor:
        """The scalar that training minimizes; ``count``: computed in so many pieces, never the whole batch at once."""
        if count == 1:
            return self.raw(model, batch).mean()
        return torch.stack([self.raw(model, p.batch).mean() * p.weight for p in self.pieces(batch, count)]).sum()

    def pieces(self, batch: Batch, count: int) -> list[Piece]:
        """The batch in ``count`` micro-batches, as equal as they can be, or fewer when it has fewer samples.

        The weighted sum of their losses is the batch's. Raises UserError when a batch cannot be cut.
        """
        if count == 1:
            return [Piece(batch, 1.0, 1.0)]
        size = batch_size(batch)
        if size is None:
            raise UserError(
                f"[training] accumulate = {count}: a {type(batch).__name__} without tensors cannot be cut into pieces"
            )
        count = min(count, size)
        ends = [size * (i + 1) // count for i in range(count)]
        spans = zip([0, *ends[:-1]], ends, strict=True)
        return [
            Piece(_slice(batch, a, b, size), (b - a) / size, 1.0 if self._sums else (b - a) / size) for a, b in spans
        ]

    @property
    def per_sample(self) -> bool:
        """Whether it gives one value per sample; False before its first call."""
        return self._per_sample is True

    def first(self, batch: Batch, count: int, size: int) -> Batch:
        """The first ``count`` of the batch's ``size`` samples."""
        return _slice(batch, 0, count, size)

    def last(self, batch: Batch, count: int, size: int) -> Batch:
        """The last ``count`` of the batch's ``size`` samples."""
        return _slice(batch, size - count, size, size)

    def samples(self, model: nn.Module, batch: Batch, count: int = 1) -> Tensor:
        """Several values whose mean is the batch's loss: per sample, or per piece of the batch. Shape (n,).

        ``count``: never more than one of so many pieces of the batch at once.
        """
        if self._per_sample is not False:
            losses = [self.raw(model, piece.batch) for piece in self.pieces(batch, count)]
            if losses[0].dim() == 1:
                return torch.cat(losses).float()
        if batch_size(batch) is None:
            return self.raw(model, batch).reshape(1).float()
        pieces = self.pieces(batch, max(count, _CHUNKS))
        try:
            values = [self.raw(model, piece.batch).mean() * (piece.weight * len(pieces)) for piece in pieces]
        except (RuntimeError, IndexError, ValueError, AssertionError) as error:
            if count > 1 or isinstance(error, torch.OutOfMemoryError):
                raise
            raise UserError(
                f"loss_fn fails on a part of a batch ({type(error).__name__}: {str(error).partition(chr(10))[0]}): "
                "return one loss per sample, shape (B,), and no batch is cut for the paired test"
            ) from error
        return torch.stack(values).float()


def _is_criterion(loss_fn: LossFn) -> bool:
    if isinstance(loss_fn, nn.Module):
        return True
    if getattr(loss_fn, "__module__", "") in ("torch.nn.functional", "torch._C._nn"):
        return True
    try:
        first = next(iter(inspect.signature(loss_fn).parameters), "")
    except (TypeError, ValueError):
        return False
    return first in _CRITERION_WORDS


def _inputs_and_targets(batch: Batch) -> tuple[Any, Any]:
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return batch[0], batch[1]
    raise UserError(f"a batch for a criterion must be (inputs, targets), not {type(batch).__name__}")


def batch_size(batch: Batch) -> int | None:
    """The first dimension that most of its tensors share, of equals the first; None when no tensor has a dimension."""
    lengths = [int(tensor.shape[0]) for tensor in _tensors(batch) if tensor.dim() > 0]
    if not lengths:
        return None
    return lengths[0] if lengths.count(lengths[0]) == len(lengths) else Counter(lengths).most_common(1)[0][0]


def checked_batch(batch: Batch, device: torch.device) -> Batch:
    """The batch on ``device``. Raises UserError for an empty one, and for None, which is no batch here."""
    if batch is None:
        raise UserError("the batch is None: give what loss_fn trains on, or its number where loss_fn has the data")
    if batch_size(batch) == 0:
        raise UserError("the batch is empty (0 samples): give at least one sample per step")
    return _map(batch, lambda t: t if t.device == device else t.to(device, non_blocking=True))


def _slice(batch: Batch, start: int, stop: int, size: int) -> Batch:
    """Samples start..stop of every tensor that has one entry per sample; others, such as class weights, stay whole."""
    return _map(batch, lambda t: t[start:stop] if t.dim() and t.shape[0] == size else t)


def _tensors(batch: Batch) -> list[Tensor]:
    if isinstance(batch, Tensor):
        return [batch]
    parts = batch.values() if isinstance(batch, _MAPPINGS) else batch if isinstance(batch, (tuple, list)) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def _map(batch: Batch, f: Callable[[Tensor], Tensor]) -> Batch:
    if isinstance(batch, Tensor):
        return f(batch)
    if type(batch) is dict:
        return {key: _map(value, f) for key, value in batch.items()}
    if isinstance(batch, _MAPPINGS):  # of a kind of its own, as a tokenizer's
        mapped = copy.copy(batch)
        for key, value in batch.items():
            mapped[key] = _map(value, f)
        return mapped
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_map(value, f) for value in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(_map(value, f) for value in batch)
    return batch
