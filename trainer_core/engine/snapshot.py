"""One copy of weights, buffers and optimizer state to come back to. Restoring is exact, not an inverse operation."""

from typing import Any

import torch
from torch import Tensor, nn

from trainer_core.learning.parameters import Parameters


class Snapshot:
    """Taken before a prediction. Memory: P weights plus the optimizer's own state, on ``device``.

    From a GPU to host memory it is copied into pinned pages and nobody waits for it: what reads or writes the GPU comes
    after it on the stream, and ``state_dict``, which the host reads, waits.
    """

    def __init__(self, parameters: Parameters, model: nn.Module, optimizer: torch.optim.Optimizer, device: str) -> None:
        where = torch.device("cpu") if device == "cpu" else parameters.device
        self.weights_P: Tensor = _copy(parameters.read(parameters.empty()), where)
        self.buffers = [_copy(b, where) for b in model.buffers()]
        self.optimizer = copied(optimizer.state_dict(), where)

    @torch.no_grad()
    def restore(self, parameters: Parameters, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Put everything back, bit for bit. Learning rate and weight decay stay: others set them."""
        parameters.write(self.weights_P.to(parameters.device, non_blocking=True))
        for buffer, kept in zip(model.buffers(), self.buffers, strict=True):
            buffer.copy_(kept, non_blocking=True)
        restore_optimizer(optimizer, self.optimizer)

    def state_dict(self) -> dict[str, Any]:
        if torch.cuda.is_available():
            torch.cuda.current_stream().synchronize()
        return {"weights": self.weights_P, "buffers": self.buffers, "optimizer": self.optimizer}

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> "Snapshot":
        snapshot = cls.__new__(cls)
        snapshot.weights_P = state["weights"].to(device)
        snapshot.buffers = [b.to(device) for b in state["buffers"]]
        snapshot.optimizer = state["optimizer"]
        return snapshot


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load ``state`` but keep what schedule and operator have set: learning rate and weight decay of each group."""
    kept: list[dict[str, Any]] = [
        {k: group[k] for k in ("lr", "weight_decay") if k in group} for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(state)
    for group, values in zip(optimizer.param_groups, kept, strict=True):
        group.update(values)


def copied(value: Any, device: torch.device | None = None) -> Any:
    """A deep copy of a state dict whose tensors live on ``device`` (None: where they are)."""
    if isinstance(value, Tensor):
        return _copy(value, device) if device else value.detach().clone()
    if isinstance(value, dict):
        return {key: copied(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(copied(item, device) for item in value)
    return value


def _copy(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy on ``device``; from a GPU to the host through pinned pages, without waiting."""
    tensor = tensor.detach()
    if tensor.is_cuda and device.type == "cpu":
        return torch.empty_like(tensor, device=device, pin_memory=True).copy_(tensor, non_blocking=True)
    return tensor.to(device, copy=True)
