"""Linear extrapolation: the weights go on as they went. Two slopes, both free or nearly so.

Each tensor takes the optimizer's slope where the optimizer keeps moments, else the window's (``direction`` decides).

Optimizer slope (Adam family), per coordinate:
    r = m_hat / (sqrt(v_hat) + eps)               m_hat, v_hat: the bias-corrected moments the optimizer already keeps
    d = -lr r (1 + k^2) r^2 / (r^2 + k^2)         k = noise_mask: the more noise, the less of Adam's step
Window slope, any optimizer, per parameter tensor j:
    s <- s + (delta - s) / min(n, window)         a running mean of the recent changes
    d_j = c_j * s_j,   c_j = clip(<delta_j, s_j> / <s_j, s_j>, 0, 1)   averaged over the window: shrinkage towards zero
"""

import math
from typing import Any

import torch
from torch import Tensor

from trainer_core.learning.parameters import Parameters
from trainer_core.learning.pieces import pieces
from trainer_core.learning.predictors import Observation, Proposal, TrainingState
from trainer_core.learning.predictors.directions import adam_into, has_moments
from trainer_core.spec.config import PredictorConfig


class Linear:
    """See the module. Memory: the running mean, half a model where every tensor takes the optimizer's slope.

    The mean then only measures how predictable the steps are, and bfloat16 holds it well enough; where it is the slope
    that weights follow, it is float32. Residual and proposal live in borrowed memory, or in a model's worth each.
    """

    def __init__(self, parameters: Parameters, optimizer: torch.optim.Optimizer, config: PredictorConfig) -> None:
        self._parameters = parameters
        self._optimizer = optimizer
        self._config = config
        self._slope_P: Tensor | None = None
        self._work_P: Tensor | None = None
        self._overlap_J = torch.zeros(len(parameters.sizes), device=parameters.device)
        self._energy_J = torch.zeros(len(parameters.sizes), device=parameters.device)
        self._seen = 0
        self._moments: tuple[int, list[int]] | None = None
        """(tensors the optimizer has a state of, those without Adam's moments) when last asked."""

    def borrow(self, work_P: Tensor) -> None:
        """Residual and proposal go into ``work_P``, which may be the ``delta_P`` of ``observe``."""
        self._work_P = work_P

    @torch.no_grad()
    def observe(self, delta_P: Tensor, state: TrainingState) -> Observation:
        slope_P = self._slope()
        if self._seen:
            self._learn_shrinkage(delta_P, slope_P)
        residual_P = torch.empty_like(delta_P) if self._work_P is None else self._work_P
        self._seen += 1
        rate, norms = 1.0 / min(self._seen, self._config.window), []
        for delta, slope, residual in pieces(delta_P, slope_P, residual_P):
            mean = slope.float()  # torch would widen it for each operation
            torch.sub(delta, mean, out=residual)
            norms.append(torch.linalg.vector_norm(residual))
            mean.add_(residual, alpha=rate)
            if mean is not slope:
                slope.copy_(mean)
        if self._seen == 1:
            return Observation(None, None)
        norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
        return Observation(None, residual_P, norm)

    def _slope(self) -> Tensor:
        """The running mean (P,), as coarse as its use allows now."""
        wanted = torch.float32 if self._windowed() else torch.bfloat16
        if self._slope_P is None:
            self._slope_P = self._parameters.empty().to(wanted)
        elif self._slope_P.dtype is not wanted:
            self._slope_P = self._slope_P.to(wanted)
        return self._slope_P

    def _windowed(self) -> list[int]:
        """The parameter tensors whose slope is the window's: those without Adam's moments, unless a setting decides."""
        count = len(self._parameters.sizes)
        if self._config.direction != "auto":
            return list(range(count)) if self._config.direction == "window" else []
        known = len(self._optimizer.state)
        if self._moments is None or self._moments[0] != known:  # a tensor's state begins at its first gradient
            moments = has_moments(self._parameters, self._optimizer)
            self._moments = (known, [j for j in range(count) if not moments[j]])
        return self._moments[1]

    def _learn_shrinkage(self, delta_P: Tensor, slope_P: Tensor) -> None:
        windowed = self._windowed()
        if not windowed:
            return
        rate = 1.0 / min(self._seen, self._config.window)
        deltas, slopes = delta_P.split(self._parameters.sizes), slope_P.split(self._parameters.sizes)
        zero, chosen, count = delta_P.new_zeros(()), set(windowed), len(deltas)
        overlap_J = torch.stack([torch.dot(deltas[j], slopes[j]) if j in chosen else zero for j in range(count)])
        energy_J = torch.stack([torch.dot(slopes[j], slopes[j]) if j in chosen else zero for j in range(count)])
        self._overlap_J.lerp_(overlap_J, rate)
        self._energy_J.lerp_(energy_J, rate)

    @torch.no_grad()
    def propose(self, state: TrainingState) -> Proposal | None:
        step_P = self._parameters.empty() if self._work_P is None else self._work_P.zero_()
        if self._config.direction != "window":
            adam_into(step_P, self._parameters, self._optimizer, self._config.noise_mask)
        self._fill_windowed(step_P)
        proposal = Proposal.along(step_P)
        return proposal if math.isfinite(proposal.step_norm) and proposal.step_norm > 0 else None

    def _fill_windowed(self, step_P: Tensor) -> None:
        """Write the shrunken window slope where the optimizer has no slope of its own."""
        windowed = self._windowed()
        if self._slope_P is None or not windowed:
            return
        shrink_J = (self._overlap_J / self._energy_J.clamp_min(1e-30)).clamp(0.0, 1.0)
        parts, slopes = step_P.split(self._parameters.sizes), self._slope_P.split(self._parameters.sizes)
        for j in windowed:
            torch.mul(slopes[j], shrink_J[j] if self._seen > 1 else 1.0, out=parts[j])

    def state_dict(self) -> dict[str, Any]:
        return {"slope": self._slope_P, "overlap": self._overlap_J, "energy": self._energy_J, "seen": self._seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        slope_P = state["slope"]
        self._slope_P = None if slope_P is None else slope_P.to(self._parameters.device, copy=True)
        self._overlap_J.copy_(state["overlap"])
        self._energy_J.copy_(state["energy"])
        self._seen = state["seen"]
