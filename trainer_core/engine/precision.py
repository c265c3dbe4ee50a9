"""Mixed precision or none, behind four calls. Knows no phase."""

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from trainer_core.spec.config import TrainingConfig
from trainer_core.spec.errors import ConfigError


class Precision:
    """``precision`` fp16 with dynamic loss scaling, bf16 without, or plain float32: ``use_mixed_precision`` is off.

    auto: fp16 on CUDA, bf16 on CPU. Raises ConfigError when the device has no bf16, or the weights (their types) are
    fp16 themselves.
    """

    def __init__(self, config: TrainingConfig, device: torch.device, weights: Iterable[torch.dtype] = ()) -> None:
        self._device = device.type
        self._mixed = config.use_mixed_precision
        self._dtype = _dtype(config.precision, device.type)
        self._scaler: Any = None
        if (
            self._mixed
            and self._dtype is torch.bfloat16
            and device.type == "cuda"
            and not torch.cuda.is_bf16_supported()
        ):
            raise ConfigError("[training] precision = 'bf16': this GPU has no bfloat16; use 'fp16'")
        if self._mixed and self._dtype is torch.float16:
            if torch.float16 in weights:
                raise ConfigError(
                    "[training] precision = 'fp16': the model's weights are float16 already, and scaled gradients need "
                    "float32 weights; use model.float(), or use_mixed_precision = false"
                )
            self._scaler = torch.amp.GradScaler(device.type, init_scale=config.loss_scale)

    @property
    def scales(self) -> bool:
        """Whether gradients carry a loss scale until ``unscale``."""
        return self._scaler is not None

    def forward(self) -> AbstractContextManager[Any]:
        """The context of every forward pass."""
        return torch.autocast(self._device, dtype=self._dtype) if self._mixed else nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Backward pass; gradients carry the loss scale until ``unscale``."""
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the loss scale off the gradients, once a step."""
        if self._scaler is not None:
            self._scaler.unscale_(optimizer)

    def overflowed(self, loss: float, grad_norm: float | None) -> bool:
        """Whether the scaler skipped the step, as it does while it finds its scale: no divergence, no measurement."""
        return (
            self._scaler is not None and grad_norm is not None and math.isfinite(loss) and not math.isfinite(grad_norm)
        )

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Optimizer step; the scaler skips it when the scaled gradients overflowed.

        torch's fused optimizers are told so on the device; for others the scaler reads it, which synchronises.
        """
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


def _dtype(precision: str, device: str) -> torch.dtype:
    if precision == "auto":
        precision = "fp16" if device == "cuda" else "bf16"
    return torch.float16 if precision == "fp16" else torch.bfloat16
