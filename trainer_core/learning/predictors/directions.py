"""The step an optimizer's own memory would take next: costs nothing to keep, and waits for no device."""

import torch
from torch import Tensor

from trainer_core.learning.parameters import Parameters
from trainer_core.learning.pieces import pieces


def has_moments(parameters: Parameters, optimizer: torch.optim.Optimizer) -> list[bool]:
    """For each parameter tensor, whether the optimizer keeps Adam's two moments of it."""
    state = optimizer.state
    return [(s := state.get(p)) is not None and "exp_avg" in s and "exp_avg_sq" in s for p in parameters.tensors]


def adam_direction(parameters: Parameters, optimizer: torch.optim.Optimizer, noise_mask: float) -> Tensor | None:
    """The step Adam's present moments would take, shape (P,), 0 where it keeps none; None when it keeps none at all."""
    step_P = parameters.empty()
    return step_P if any(adam_into(step_P, parameters, optimizer, noise_mask)) else None


@torch.no_grad()
def adam_into(out_P: Tensor, parameters: Parameters, optimizer: torch.optim.Optimizer, noise_mask: float) -> list[bool]:
    """Write the step Adam's present moments would take into ``out_P`` (P,); says of which tensors it keeps them.

    r = m_hat / (sqrt(v_hat) + eps),   d = -lr r (1 + k^2) r^2 / (r^2 + k^2),   k = noise_mask.   Kingma & Ba 2015.
    """
    settings = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    written = []
    for view, p in zip(parameters.views(out_P), parameters.tensors, strict=True):
        state, group = optimizer.state.get(p, {}), settings.get(id(p), {})
        known = "exp_avg" in state and "exp_avg_sq" in state and "betas" in group
        written.append(known)
        if not known:
            continue
        beta1, beta2 = group["betas"]
        count, rate = _count(state["step"]), _rate(group["lr"])
        square = state.get("max_exp_avg_sq", state["exp_avg_sq"])
        for out, m, v in pieces(view, state["exp_avg"], square):
            mean = m.float() / (1 - beta1**count)
            rms = (v.float() / (1 - beta2**count)).sqrt_()
            torch.div(mean, rms.add_(group["eps"]), out=out)
            if noise_mask > 0:
                square = torch.square(out, out=rms)
                out.mul_(square.div_(square + noise_mask**2))
            out.mul_(-rate * (1 + noise_mask**2))
    return written


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
