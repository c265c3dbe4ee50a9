"""Linear extrapolation: the weights go on as they went. Two slopes, both free or nearly so.

Optimizer slope (Adam family), per coordinate:
    d = -lr * m_hat / (sqrt(v_hat) + eps)         m_hat, v_hat: the bias-corrected moments the optimizer already keeps
    d = 0 where abs(m_hat) / sqrt(v_hat) < noise_mask: there the gradient is mostly noise and Adam would move anyway
Window slope, any optimizer, per parameter tensor j:
    s <- s + (delta - s) / min(n, window)         a running mean of the recent changes
    d_j = c_j * s_j,   c_j = clip(<delta_j, s_j> / <s_j, s_j>, 0, 1)   averaged over the window: shrinkage towards zero
"""

import math
from typing import Any

import torch
from torch import Tensor

from trainer_core.learning.parameters import Parameters
from trainer_core.learning.predictors import Observation, Proposal, TrainingState
from trainer_core.spec.config import PredictorConfig


class Linear:
    """See the module. Memory: two vectors of P beside the proposal."""

    def __init__(self, parameters: Parameters, optimizer: torch.optim.Optimizer, config: PredictorConfig) -> None:
        self._parameters = parameters
        self._optimizer = optimizer
        self._config = config
        self._slope_P = parameters.empty()
        self._residual_P = parameters.empty()
        self._overlap_J = torch.zeros(len(parameters.sizes), device=parameters.device)
        self._energy_J = torch.zeros(len(parameters.sizes), device=parameters.device)
        self._seen = 0

    @torch.no_grad()
    def observe(self, delta_P: Tensor, state: TrainingState) -> Observation:
        error: Tensor | None = None
        torch.sub(delta_P, self._slope_P, out=self._residual_P)
        if self._seen:
            if not self._follows_moments:
                self._learn_shrinkage(delta_P)
            error = torch.linalg.vector_norm(self._residual_P) / torch.linalg.vector_norm(delta_P)
        self._seen += 1
        self._slope_P.add_(self._residual_P, alpha=1.0 / min(self._seen, self._config.window))
        return Observation(error, self._residual_P if self._seen > 1 else None)

    @property
    def _follows_moments(self) -> bool:
        """Whether the optimizer's moments give the slope, so that the window's shrinkage is never asked for."""
        state = self._optimizer.state.get(self._parameters.tensors[0], {})
        return self._config.direction != "window" and "exp_avg" in state and "exp_avg_sq" in state

    def _learn_shrinkage(self, delta_P: Tensor) -> None:
        rate = 1.0 / min(self._seen, self._config.window)
        slopes = self._slope_P.split(self._parameters.sizes)
        overlap_J = torch.stack(
            [torch.dot(d, s) for d, s in zip(delta_P.split(self._parameters.sizes), slopes, strict=True)]
        )
        energy_J = torch.stack([torch.dot(s, s) for s in slopes])
        self._overlap_J.lerp_(overlap_J, rate)
        self._energy_J.lerp_(energy_J, rate)

    @torch.no_grad()
    def propose(self, state: TrainingState) -> Proposal | None:
        step_P = None
        if self._config.direction != "window":
            step_P = adam_direction(self._parameters, self._optimizer, self._config.noise_mask)
        if step_P is None and self._config.direction != "optimizer" and self._seen:
            step_P = self._window_slope()
        if step_P is None:
            return None
        proposal = Proposal.along(step_P)
        return proposal if math.isfinite(proposal.step_norm) and proposal.step_norm > 0 else None

    def _window_slope(self) -> Tensor:
        shrink_J = (self._overlap_J / self._energy_J.clamp_min(1e-30)).clamp(0.0, 1.0) if self._seen > 1 else None
        step_P = self._slope_P.clone()
        if shrink_J is not None:
            for part, shrink in zip(step_P.split(self._parameters.sizes), shrink_J, strict=True):
                part.mul_(shrink)
        return step_P

    def state_dict(self) -> dict[str, Any]:
        return {"slope": self._slope_P, "overlap": self._overlap_J, "energy": self._energy_J, "seen": self._seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._slope_P.copy_(state["slope"])
        self._overlap_J.copy_(state["overlap"])
        self._energy_J.copy_(state["energy"])
        self._seen = state["seen"]


@torch.no_grad()
def adam_direction(parameters: Parameters, optimizer: torch.optim.Optimizer, noise_mask: float) -> Tensor | None:
    """The step Adam's present moments would take, shape (P,); None when the optimizer keeps no such moments."""
    settings = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    step_P = parameters.empty()
    known = False
    for view, p in zip(parameters.views(step_P), parameters.tensors, strict=True):
        state = optimizer.state.get(p, {})
        group = settings.get(id(p))
        if group is None or "exp_avg" not in state or "exp_avg_sq" not in state or "betas" not in group:
            continue
        known = True
        beta1, beta2 = group["betas"]
        count = float(state["step"])
        mean = state["exp_avg"].float() / (1 - beta1**count)
        rms = (state.get("max_exp_avg_sq", state["exp_avg_sq"]).float() / (1 - beta2**count)).sqrt_()
        torch.div(mean, rms + group["eps"], out=view)
        view.mul_(-float(group["lr"]))
        if noise_mask > 0:
            view.masked_fill_(mean.abs() < noise_mask * rms, 0.0)
    return step_P if known else None
