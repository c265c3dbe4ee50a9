"""Mixed precision or none, behind three calls. Knows no phase."""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from trainer_core.spec.config import TrainingConfig


class Precision:
    """fp16 with dynamic loss scaling on CUDA, bf16 on CPU, or plain float32 when ``use_mixed_precision`` is off."""

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        self._device = device.type
        self._mixed = config.use_mixed_precision
        self._dtype = torch.float16 if device.type == "cuda" else torch.bfloat16
        self._scaler: Any = None
        if self._mixed and device.type == "cuda":
            self._scaler = torch.amp.GradScaler("cuda", init_scale=config.loss_scale)

    def forward(self) -> AbstractContextManager[Any]:
        """The context of every forward pass."""
        return torch.autocast(self._device, dtype=self._dtype) if self._mixed else nullcontext()

    def backward(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Backward pass; gradients are unscaled when it returns."""
        if self._scaler is None:
            loss.backward()
        else:
            self._scaler.scale(loss).backward()
            self._scaler.unscale_(optimizer)

    def overflowed(self, loss: float, grad_norm: float | None) -> bool:
        """Whether the scaler skipped the step, as it does while it finds its scale: no divergence, no measurement."""
        return (
            self._scaler is not None and grad_norm is not None and math.isfinite(loss) and not math.isfinite(grad_norm)
        )

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Optimizer step; the scaler skips it when the scaled gradients overflowed."""
        if self._scaler is None:
            optimizer.step()
        else:
            self._scaler.step(optimizer)
            self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        return {} if self._scaler is None else self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self._scaler is not None and state:
            self._scaler.load_state_dict(state)
