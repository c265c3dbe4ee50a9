"""Gradients averaged over the ranks, and tensors copied from rank 0: flat buckets of one type. Decides nothing.

g = (g_0 + ... + g_{R-1}) / R, each divided before the sum so that a loss scale in fp16 does not overflow; NaN or Inf on
one rank is NaN or Inf on all. A bucket holds up to 25 MB; two are on their way at a time, so the memory beyond a plain
step is two buckets. A parameter that has a gradient on some ranks only counts as zero on the others; one that has none
on any keeps none, so that the optimizer leaves it alone as it does in a single process.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_BUCKET_BYTES = 25 << 20


class Averaging:
    """One run's averaging. ``ragged``: whether a parameter was without a gradient at the first step; then every step
    asks which have one, which waits for the device. None before the first step."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.ragged: bool | None = None

    @torch.no_grad()
    def average(self, tensors: list[Tensor], scalars: Tensor) -> Tensor:
        """Average ``p.grad`` of ``tensors`` in place; returns the mean of ``scalars`` (k,), float32.

        Dense gradients only. Every rank has the same tensors in the same order.
        """
        present = self._present(tensors, scalars.device)
        grads = []
        for p, here in zip(tensors, present, strict=True):
            if here:
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
                grads.append(p.grad)
        shared = scalars.float()
        pending: list[tuple[list[Tensor], Tensor, Any]] = []
        for bucket in _buckets([*grads, shared]):
            flat = _flat(bucket).div_(self._size)
            pending.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
            if len(pending) == 2:
                _arrive(pending.pop(0))
        for each in pending:
            _arrive(each)
        return shared

    def _present(self, tensors: list[Tensor], device: torch.device) -> list[bool]:
        """Which parameters have a gradient on any rank."""
        if self.ragged is False:
            return [True] * len(tensors)
        counts = torch.tensor([float(p.grad is not None) for p in tensors], device=device)
        dist.all_reduce(counts)
        present = [count > 0 for count in counts.tolist()]
        self.ragged = not all(present) if self.ragged is None else self.ragged
        return present


def broadcast_tensors(tensors: list[Tensor]) -> None:
    """Rank 0's values in place of everybody's."""
    for bucket in _buckets(tensors):
        flat = _flat(bucket)
        dist.broadcast(flat, 0)
        _spread(bucket, flat)


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors of one type together, in order, up to 25 MB; a larger one alone."""
    for dtype in dict.fromkeys(t.dtype for t in tensors):
        bucket: list[Tensor] = []
        size = 0
        for tensor in (t for t in tensors if t.dtype == dtype):
            if bucket and size + tensor.nbytes > _BUCKET_BYTES:
                yield bucket
                bucket, size = [], 0
            bucket.append(tensor)
            size += tensor.nbytes
        yield bucket


def _flat(bucket: list[Tensor]) -> Tensor:
    """The bucket as one vector; a single contiguous tensor is its own."""
    if len(bucket) == 1 and bucket[0].is_contiguous():
        return bucket[0].detach().view(-1)
    return torch.cat([t.detach().reshape(-1) for t in bucket])


def _spread(bucket: list[Tensor], flat: Tensor) -> None:
    """``flat`` back into its tensors."""
    if flat.data_ptr() == bucket[0].data_ptr():
        return
    parts = flat.split([t.numel() for t in bucket])
    torch._foreach_copy_([t.detach() for t in bucket], [v.view(t.shape) for v, t in zip(parts, bucket, strict=True)])


def _arrive(sent: tuple[list[Tensor], Tensor, Any]) -> None:
    bucket, flat, work = sent
    work.wait()
    _spread(bucket, flat)
