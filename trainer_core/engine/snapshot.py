"""What a prediction comes back to: weights, buffers, optimizer state. Restoring is exact, not an inverse operation."""

from typing import Any

import torch
from torch import Tensor, nn

from trainer_core.engine import buffers
from trainer_core.learning.parameters import Parameters


class Snapshot:
    """Taken before a prediction. Memory: the weights; where CORRECT steps before the verdict, the optimizer's state as
    well. Both on ``device``.

    PREDICT takes no optimizer step: until CORRECT's first there is nothing of the optimizer to keep. From a GPU to host
    memory it is copied into pinned pages and nobody waits for it: what reads or writes the GPU comes after it on the
    stream, and ``state_dict``, which the host reads, waits.
    """

    def __init__(self, parameters: Parameters, model: nn.Module, device: str, weights_P: Tensor | None = None) -> None:
        """``weights_P``: a copy of the present weights that it may have; None: it makes its own."""
        self._where = torch.device("cpu") if device == "cpu" else parameters.device
        weights_P = parameters.keep(parameters.empty()) if weights_P is None else weights_P
        self.weights_P: Tensor = weights_P if self._where == weights_P.device else _copy(weights_P, self._where)
        self.buffers = buffers.kept(model, lambda b: _copy(b, self._where))
        self.optimizer: dict[str, Any] | None = None

    def keep_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Keep the optimizer's state: full steps follow, which move it."""
        if self.optimizer is None:
            self.optimizer = copied(optimizer.state_dict(), self._where)

    @torch.no_grad()
    def restore(self, parameters: Parameters, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Put everything back, bit for bit. Learning rate and weight decay stay: others set them."""
        parameters.write(self.weights_P.to(parameters.device, non_blocking=True))
        buffers.put_back(model, self.buffers, parameters.device)
        if self.optimizer is not None:
            restore_optimizer(optimizer, self.optimizer)

    def state_dict(self) -> dict[str, Any]:
        if torch.cuda.is_available():
            torch.cuda.current_stream().synchronize()
        return {"weights": self.weights_P, "buffers": self.buffers, "optimizer": self.optimizer}

    @classmethod
    def from_state(cls, state: dict[str, Any], model: nn.Module, device: torch.device) -> "Snapshot":
        snapshot = cls.__new__(cls)
        snapshot._where = device
        snapshot.weights_P = state["weights"].to(device)
        held = state["buffers"] if isinstance(state["buffers"], dict) else buffers.named(model, state["buffers"])
        snapshot.buffers = {name: None if b is None else b.to(device) for name, b in held.items()}
        snapshot.optimizer = state["optimizer"]
        return snapshot


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load ``state`` but keep what schedule and operator have set: learning rate and weight decay of each group."""
    kept: list[dict[str, Any]] = [
        {k: group[k] for k in ("lr", "weight_decay") if k in group} for group in optimizer.param_groups
    ]
    load_optimizer(optimizer, state)
    for group, values in zip(optimizer.param_groups, kept, strict=True):
        group.update(values)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """``optimizer.load_state_dict``, with step counts on the host where its kernels read them there.

    torch leaves a count on the device that a checkpoint was loaded to; unless the optimizer is fused or capturable,
    every later step would wait for the device once for each parameter.
    """
    on_device = {
        index
        for group in state["param_groups"]
        if group.get("fused") or group.get("capturable")
        for index in group["params"]
    }
    entries = {
        index: entry if index in on_device else {k: v.cpu() if _is_count(k, v) else v for k, v in entry.items()}
        for index, entry in state["state"].items()
    }
    optimizer.load_state_dict(state | {"state": entries})


def _is_count(name: str, value: Any) -> bool:
    return name == "step" and isinstance(value, Tensor)


def copied(value: Any, device: torch.device | None = None) -> Any:
    """A deep copy of a state dict whose tensors live on ``device`` (None: where they are).

    What is on the host stays there: an optimizer that keeps its step counts there reads them there.
    """
    if isinstance(value, Tensor):
        return _copy(value, device) if device and value.device.type != "cpu" else value.detach().clone()
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
