"""A model's buffers, kept and put back also where training changed their shape: a cache, a history. Moves no weight."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Buffers = dict[str, Tensor | None]
"""By name, those that are declared and not there yet included: None."""


def kept(model: nn.Module, copy: Callable[[Tensor], Tensor]) -> Buffers:
    """Copies of the buffers as they are now."""
    return {name: None if buffer is None else copy(buffer) for name, _, _, buffer in _slots(model)}


def named(model: nn.Module, values: Sequence[Tensor]) -> Buffers:
    """What an earlier version kept as a list, in the order of ``model.buffers()``."""
    found = {id(buffer): value for buffer, value in zip(model.buffers(), values, strict=False)}
    return {name: None if buffer is None else found.get(id(buffer)) for name, _, _, buffer in _slots(model)}


@torch.no_grad()
def put_back(model: nn.Module, buffers: Buffers, device: torch.device) -> None:
    """The buffers that ``kept`` found, in place where their shape is the same; those that came since are gone again."""
    for name, module, own, now in _slots(model):
        then = buffers.get(name)
        if then is not None and now is not None and then.shape == now.shape:
            now.copy_(then, non_blocking=True)
        elif name in buffers:
            module._buffers[own] = None if then is None else then.to(device, copy=True)
        else:
            delattr(module, own)


def load_model(model: nn.Module, weights: Mapping[str, Any]) -> None:
    """``model.load_state_dict``, where the model is the one saved, but its buffers may have other shapes since."""
    present = model.state_dict()
    for name, module, own, now in _slots(model):
        then = weights.get(name)
        if isinstance(then, Tensor) and (now is None or now.shape != then.shape):
            module._buffers[own] = torch.empty_like(then)
        elif name in present and name not in weights:
            module._buffers[own] = None
    model.load_state_dict(weights)


def _slots(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor | None]]:
    """(name, its module, its name there, the buffer) of every buffer, once."""
    for path, module in model.named_modules():
        for own, buffer in list(module._buffers.items()):
            yield f"{path}.{own}" if path else own, module, own, buffer
