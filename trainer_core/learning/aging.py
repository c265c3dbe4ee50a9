"""Adam's second moments in nominal steps: what a kept prediction leaves undone in them. Knows no predictions.

A prediction of n steps brings the weights n steps on and leaves v where it was. Where gradients shrink as training goes
on, as they do early in a run, v is then an average over gradients long gone: too large, and steps too small. So v and
its count may age as n steps would have made them, with the gradient g at hand as the one of each:

    v <- b^n v + (1 - b^n) g^2,   t <- t + n,   b = beta2     (v / (1 - b^t) stays a mean, with weights that sum to one)
    m <- m (1 - a^(t+n)) / (1 - a^t),           a = beta1     (m / (1 - a^t), the direction, stays what it was)

One gradient is noisy: b^n is never less than 0.9.
"""

import math

import torch
from torch import Tensor

LEAST_KEPT = 0.9
"""Of the old average, at least."""


@torch.no_grad()
def age_second_moments(optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Age every ``exp_avg_sq`` by ``steps`` with the gradient its parameter has; nothing waits for a device.

    Optimizers without one (SGD, Muon's matrices), parameters without a dense gradient and a beta2 of 0 are left alone.
    """
    for group in optimizer.param_groups:
        beta2 = group["betas"][1] if "betas" in group else 0.0
        if not 0.0 < beta2 < 1.0 or steps < 1:
            continue
        kept = max(LEAST_KEPT, beta2**steps)
        squares: list[Tensor] = []
        gradients: list[Tensor] = []
        for p in group["params"]:
            state = optimizer.state.get(p, {})
            if p.grad is None or p.grad.is_sparse or p.is_complex() or "exp_avg_sq" not in state:
                continue
            squares.append(state["exp_avg_sq"])
            gradients.append(p.grad.to(state["exp_avg_sq"].dtype))
            known = 1.0 - group["betas"][0] ** state["step"]
            state["step"] += math.log(kept) / math.log(beta2)
            state["exp_avg"].mul_((1.0 - group["betas"][0] ** state["step"]) / known)
        if squares:
            torch._foreach_mul_(squares, kept)
            torch._foreach_addcmul_(squares, gradients, gradients, 1.0 - kept)
