"""Vectors as large as the model, worked on a piece at a time. Computes nothing itself."""

from collections.abc import Iterator

import torch
from torch import Tensor

_PIECE = 1 << 18
"""Scalars worked on at once on a CPU: what is computed on the way stays in its cache."""
_LARGE_PIECE = 1 << 22
"""On another device, which a small piece would not fill."""


def piece_size(device: torch.device) -> int:
    """Scalars worked on at once on ``device``."""
    return _PIECE if device.type == "cpu" else _LARGE_PIECE


def pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The tensors, which have one shape, cut alike: what is computed on the way is then never as large as a tensor.

    That holds for what torch computes unseen, too: on a CPU an operation on two types first widens all of the narrower
    one into a copy.
    """
    piece = piece_size(tensors[0].device)
    if tensors[0].numel() <= piece or not all(t.is_contiguous() for t in tensors):
        return iter([tensors])
    return zip(*(t.view(-1).split(piece) for t in tensors), strict=True)
