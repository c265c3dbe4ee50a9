"""Muon by its orthogonalising factor, which may be predicted: one for several steps. Knows no phase, no model.

For a matrix of shape (m, n), m <= n (else it is transposed), B the momentum and U its Nesterov look-ahead:
    B <- mu B + (1 - mu) G,   U = mu B + (1 - mu) G
    Q = newton_schulz(U U^T / norm(U)^2) / norm(U)        about (U U^T)^(-1/2), shape (m, m): the dear part
    O = Q U,   W <- (1 - lr decay) W - lr scale O         Jordan et al. 2024, the iteration of torch.optim.Muon
torch.optim.Muon iterates on the whole of U in bfloat16; the factor is the same polynomial in a smaller matrix, and in
float32, which a CPU without bfloat16 units does 15 to 50 times faster (docs/decisions/0015).

Prediction: Q of step t stands in for the Q of the next ``every`` - 1 steps, O = Q_old U scaled to the norm O had at
step t. At the step after them Q is computed, and confidence = cos(Q_old U, Q_new U), averaged over the matrices, says
what the old one was still worth. While confidence is below the limit, and before it was ever measured, every step
computes its own Q; the comparison goes on at the same distance in steps, so that prediction begins when it is right.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

_TINY = 1e-7


def inverse_root(gram_MM: Tensor, coefficients: tuple[float, float, float], iterations: int) -> Tensor:
    """About gram^(-1/2) for a symmetric matrix with eigenvalues in [0, 1], by Newton-Schulz iterations.

    With X_(k+1) = P_k X_k, P_k = a I + b A_k + c A_k^2 and A_k = X_k X_k^T, all P_k commute with A_k, so that
    A_(k+1) = P_k A_k P_k and X_n = (P_(n-1) ... P_0) X_0: the product is what this returns. With the coefficients of
    torch.optim.Muon, singular values of X_5 lie between about 0.7 and 1.2, not exactly at 1.
    """
    a, b, c = coefficients
    factor_MM: Tensor | None = None
    for k in range(iterations):
        step_MM = torch.addmm(gram_MM, gram_MM, gram_MM, beta=b, alpha=c)
        step_MM.diagonal().add_(a)
        factor_MM = step_MM if factor_MM is None else step_MM @ factor_MM
        if k + 1 < iterations:
            gram_MM = step_MM @ gram_MM @ step_MM
    return torch.eye(len(gram_MM), device=gram_MM.device) if factor_MM is None else factor_MM


if TYPE_CHECKING:
    from torch.optim import Muon as _Muon
else:  # torch before 2.9 has none: the module still loads, and make_optimizer says what is missing
    _Muon = getattr(torch.optim, "Muon", torch.optim.Optimizer)


class FactoredMuon(_Muon):
    """torch.optim.Muon by its factors; see the module. Takes matrices, shape (m, n), and torch.optim.Muon's settings.

    ``every``: steps one factor serves (1: each its own, nothing is predicted). ``least``: confidence from which an old
    factor is used. Whoever steps it reads ``confidence`` and passes it to ``trust``. Memory beside the momentum, when
    ``every`` > 1: min(m, n)^2 for each matrix.
    """

    def __init__(self, params: list[nn.Parameter], every: int = 1, least: float = 0.5, **settings: Any) -> None:
        super().__init__(params, **settings)
        for group in self.param_groups:
            group.update(age=-1, trusted=False)
        self.every, self._least = every, least
        self.confidence: Tensor | None = None
        """cos(Q_old U, Q_new U) where this step compared them: a tensor of no dimension, on the parameters' device."""
        self.predicted = False
        """Whether this step used an old factor."""

    def trust(self, confidence: float) -> None:
        """Use old factors from now on, or not: what the last comparison says, read by the caller without a sync."""
        for group in self.param_groups:
            group["trusted"] = confidence >= self._least

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step on the gradients at hand; ``confidence`` and ``predicted`` say what it did."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        cosines: list[Tensor] = []
        self.predicted = False
        for group in self.param_groups:
            renew = group["age"] < 0 or group["age"] + 1 >= self.every
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, p.grad, group, renew, cosines)
            group["age"] = 0 if renew else group["age"] + 1
        self.confidence = torch.stack(cosines).mean() if cosines else None
        return loss

    def _move(self, p: Tensor, grad: Tensor, group: dict[str, Any], renew: bool, cosines: list[Tensor]) -> None:
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        momentum = state["momentum_buffer"].lerp_(grad, 1 - group["momentum"])
        update = (grad.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum).float()
        rows, columns = p.shape
        moved = self._orthogonal(update if rows <= columns else update.T, state, group, renew, cosines)
        scale = math.sqrt(max(1.0, rows / columns))
        if group["adjust_lr_fn"] == "match_rms_adamw":
            scale = 0.2 * math.sqrt(max(rows, columns))
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.add_((moved if rows <= columns else moved.T).to(p.dtype), alpha=-group["lr"] * scale)

    def _orthogonal(
        self, update_MN: Tensor, state: dict[str, Any], group: dict[str, Any], renew: bool, cosines: list[Tensor]
    ) -> Tensor:
        """O, shape (m, n), by the factor at hand or a new one."""
        old_MM = state.get("factor")
        if group["trusted"] and not renew and old_MM is not None:
            self.predicted = True
            moved_MN: Tensor = old_MM.float() @ update_MN
            return moved_MN.mul_(state["factor_norm"] / torch.linalg.vector_norm(moved_MN).clamp_min(_TINY))
        norm = torch.linalg.vector_norm(update_MN).clamp_min(group["eps"])
        unit_MN = update_MN / norm
        factor_MM = inverse_root(unit_MN @ unit_MN.T, group["ns_coefficients"], group["ns_steps"])
        moved_MN = torch.mm(factor_MM, unit_MN)
        if self.every > 1 and (renew or old_MM is None):
            if old_MM is not None:
                cosines.append(torch.cosine_similarity((old_MM.float() @ unit_MN).flatten(), moved_MN.flatten(), dim=0))
            kept = state["momentum_buffer"].dtype  # the dtype load_state_dict gives back
            state["factor"] = factor_MM.div_(norm).to(kept)
            state["factor_norm"] = torch.linalg.vector_norm(moved_MN).to(kept)
        return moved_MN
