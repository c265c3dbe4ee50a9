"""The step an optimizer's own memory would take next: costs nothing to keep, and waits for no device."""

import torch
from torch import Tensor

from trainer_core.learning.parameters import Parameters


def has_moments(parameters: Parameters, optimizer: torch.optim.Optimizer) -> list[bool]:
    """For each parameter tensor, whether the optimizer keeps Adam's two moments of it."""
    state = optimizer.state
    return [(s := state.get(p)) is not None and "exp_avg" in s and "exp_avg_sq" in s for p in parameters.tensors]


@torch.no_grad()
def adam_direction(parameters: Parameters, optimizer: torch.optim.Optimizer, noise_mask: float) -> Tensor | None:
    """The step Adam's present moments would take, shape (P,), 0 where it keeps none; None when it keeps none at all.

    d = -lr * m_hat / (sqrt(v_hat) + eps), and 0 where abs(m_hat) < noise_mask * sqrt(v_hat). Kingma & Ba 2015.
    """
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
        count = _count(state["step"])
        mean = state["exp_avg"].float() / (1 - beta1**count)
        rms = (state.get("max_exp_avg_sq", state["exp_avg_sq"]).float() / (1 - beta2**count)).sqrt_()
        torch.div(mean, rms + group["eps"], out=view)
        view.mul_(-_rate(group["lr"]))
        if noise_mask > 0:
            view.masked_fill_(mean.abs() < noise_mask * rms, 0.0)
    return step_P if known else None


@torch.no_grad()
def momentum_into(out_P: Tensor, parameters: Parameters, optimizer: torch.optim.Optimizer) -> list[bool]:
    """Write -lr * momentum into ``out_P`` (P,) for the tensors that SGD keeps one of; says which they were."""
    settings = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    written = []
    for view, p in zip(parameters.views(out_P), parameters.tensors, strict=True):
        group = settings.get(id(p), {})
        buffer = optimizer.state.get(p, {}).get("momentum_buffer")
        plain = buffer is not None and "dampening" in group  # SGD's: Muon orthogonalises its own before the step
        if plain:
            torch.mul(buffer.float(), -_rate(group["lr"]), out=view)
        written.append(plain)
    return written


def _count(step: float | Tensor) -> float | Tensor:
    """Steps taken, without waiting for a device that holds them."""
    return step if isinstance(step, Tensor) and step.device.type != "cpu" else float(step)


def _rate(rate: float | Tensor) -> float | Tensor:
    return rate if isinstance(rate, Tensor) and rate.device.type != "cpu" else float(rate)
