"""The step an optimizer's own memory would take next: costs nothing to keep, and waits for no device."""

from typing import Any

import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors

from trainer_core.learning.parameters import Parameters
from trainer_core.learning.pieces import piece_size, pieces


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
    written, most, start = [], piece_size(out_P.device), 0
    run: _Run | None = None
    for p, size in zip(parameters.tensors, parameters.sizes, strict=True):
        state, group = optimizer.state.get(p, {}), settings.get(id(p), {})
        known = "exp_avg" in state and "exp_avg_sq" in state and "betas" in group
        written.append(known)
        if known:
            count = _count(state["step"])
            if run is None or not run.goes_on_with(group, count, start, size, most):
                if run is not None:
                    run.write(out_P, noise_mask)
                run = _Run(group, count, start)
            run.add(state["exp_avg"], state.get("max_exp_avg_sq", state["exp_avg_sq"]), size)
        start += size
    if run is not None:
        run.write(out_P, noise_mask)
    return written


class _Run:
    """Neighbouring tensors of one group and age, computed as one: for small ones the calls cost more."""

    def __init__(self, group: dict[str, Any], count: float | Tensor, start: int) -> None:
        self._group, self._count = group, count
        self._start = self._end = start
        self._means: list[Tensor] = []
        self._squares: list[Tensor] = []

    def goes_on_with(self, group: dict[str, Any], count: float | Tensor, start: int, size: int, most: int) -> bool:
        """Whether the tensor at ``start`` belongs to it: no more than ``most`` scalars are put together.

        Counts that only a device knows are not compared.
        """
        if group is not self._group or isinstance(count, Tensor) or isinstance(self._count, Tensor):
            return False
        return count == self._count and start == self._end and start + size - self._start <= most

    def add(self, mean: Tensor, square: Tensor, size: int) -> None:
        self._means.append(mean)
        self._squares.append(square)
        self._end += size

    def write(self, out_P: Tensor, noise_mask: float) -> None:
        """The step of its tensors, to their place in ``out_P`` (P,)."""
        count, eps, rate = self._count, self._group["eps"], _rate(self._group["lr"])
        beta1, beta2 = self._group["betas"]
        for out, m, v in pieces(out_P[self._start : self._end], _joined(self._means), _joined(self._squares)):
            mean = m.float() / (1 - beta1**count)
            rms = (v.float() / (1 - beta2**count)).sqrt_()
            torch.div(mean, rms.add_(eps), out=out)
            if noise_mask > 0:
                square = torch.square(out, out=rms)
                out.mul_(square.div_(square + noise_mask**2))
            out.mul_(-rate * (1 + noise_mask**2))


def _joined(tensors: list[Tensor]) -> Tensor:
    """One vector of them; a single tensor is not copied where it lies in one piece."""
    return tensors[0].reshape(-1) if len(tensors) == 1 else _flatten_dense_tensors(tensors)


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
            buffer = buffer.to_dense() if buffer.is_sparse else buffer  # of an embedding with sparse gradients
            torch.mul(buffer.float(), -_rate(group["lr"]), out=view)
        written.append(plain)
    return written


def _count(step: float | Tensor) -> float | Tensor:
    """Steps taken, without waiting for a device that holds them."""
    return step if isinstance(step, Tensor) and step.device.type != "cpu" else float(step)


def _rate(rate: float | Tensor) -> float | Tensor:
    return rate if isinstance(rate, Tensor) and rate.device.type != "cpu" else float(rate)
