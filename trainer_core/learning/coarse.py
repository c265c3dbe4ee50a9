"""Weights kept in 16 bits each, for comparing losses later. Not exact: what must be restored is kept elsewhere.

q = round(w / s),   s = max abs(w) / 32767 over each parameter tensor
abs(w - s q) <= s / 2: 1.5e-5 of the tensor's largest weight, in no common direction. bfloat16 takes as much room and
would be off by up to 2e-3 of each weight, as much as several training steps move it.
"""

from typing import Any

import torch
from torch import Tensor

from trainer_core.learning.parameters import Parameters

_MOST = 32767.0


class CoarseWeights:
    """One rounded copy of the weights. Memory: half a float32 model."""

    def __init__(self, codes: list[Tensor], scales: list[Tensor]) -> None:
        self._codes, self._scales = codes, scales

    @classmethod
    @torch.no_grad()
    def of(cls, parameters: Parameters, device: torch.device) -> "CoarseWeights":
        """The present weights, rounded, on ``device``. Weights that are not finite stay not finite."""
        codes, scales = [], []
        for p in parameters.tensors:
            weights = p.detach().float()
            scale = (weights.abs().max() if weights.numel() else weights.new_zeros(())) / _MOST
            codes.append((weights / scale.clamp_min(1e-38)).round_().to(device, torch.int16))
            scales.append(scale.to(device))
        return cls(codes, scales)

    @torch.no_grad()
    def write(self, parameters: Parameters) -> None:
        """Put the rounded weights into the model, tensor by tensor."""
        for p, code, scale in zip(parameters.tensors, self._codes, self._scales, strict=True):
            p.copy_(code.to(p.device).float().mul_(scale.to(p.device)))

    def state_dict(self) -> dict[str, Any]:
        return {"codes": self._codes, "scales": self._scales}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "CoarseWeights":
        return cls([c.clone() for c in state["codes"]], [s.clone() for s in state["scales"]])
