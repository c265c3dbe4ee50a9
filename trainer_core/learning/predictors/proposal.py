"""A proposed path of weight changes, and the losses expected along it. Knows no predictor.

after k steps    w + v_j (1 - rho_j^k) / (1 - rho_j)  in parameter group j      (rho = 1: w + k v_j, a straight line)
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import msgspec
import torch
from torch import Tensor

from trainer_core.learning.parameters import Parameters
from trainer_core.spec.errors import UserError


class LossPath(msgspec.Struct, frozen=True):
    """Expected loss after 1..H steps, relative to the loss at the start (1: unchanged), and how sure that is."""

    ratio: tuple[float, ...]
    deviation: tuple[float, ...]
    """Standard deviation of each ratio."""

    def at(self, step: int) -> tuple[float, float]:
        """(ratio, deviation) after ``step`` >= 0 steps; beyond the path's end, those of its end."""
        if step < 1:
            return 1.0, 0.0
        index = min(step, len(self.ratio)) - 1
        return self.ratio[index], self.deviation[index]


class Proposal(msgspec.Struct, frozen=True):
    """A path of weight changes. Build it with ``Proposal.along``."""

    step_P: Tensor
    """Predicted change of the first step, shape (P,), float32."""
    step_norm: float
    """Its L2 norm."""
    growth: tuple[float, ...] = (1.0,)
    """rho of each parameter group: how much each step is of the one before."""
    sizes: tuple[int, ...] = ()
    """Scalars in each group, in the order of ``step_P``; empty: all parameters are one group."""
    group_norms: tuple[float, ...] = ()
    """L2 norm of ``step_P`` in each group; empty when there is one."""
    uncertainty: float | None = None
    """Spread of an ensemble's members about their mean, over the norm of the mean, no dimension; None without one."""
    loss_path: LossPath | None = None
    """None: the predictor has no opinion on the loss."""

    @classmethod
    def along(
        cls,
        step_P: Tensor,
        growth: Sequence[float] = (1.0,),
        sizes: Sequence[int] = (),
        *,
        uncertainty: float | None = None,
        loss_path: LossPath | None = None,
    ) -> "Proposal":
        """A path whose first step is ``step_P`` (P,). Waits for the device, to know its norms."""
        parts = step_P.split(list(sizes)) if len(sizes) > 1 else (step_P,)
        norms = torch.stack([torch.linalg.vector_norm(part) for part in parts]).tolist()
        group_norms = tuple(norms) if len(norms) > 1 else ()
        return cls(
            step_P, math.hypot(*norms), tuple(growth), tuple(sizes), group_norms, uncertainty, loss_path
        )  # fmt: skip

    @property
    def _straight(self) -> bool:
        return all(rho == 1.0 for rho in self.growth)

    def change(self, start: int, end: int) -> Tensor:
        """Weight change between ``start`` and ``end`` steps along the path, shape (P,); do not write to it."""
        if self._straight:
            return self.step_P if end - start == 1 else self.step_P * (end - start)
        factors = [rho**start * reach(rho, end - start) for rho in self.growth]
        if len(factors) == 1:
            return self.step_P * factors[0]
        out_P = self.step_P.clone()
        torch._foreach_mul_(list(out_P.split(list(self.sizes))), factors)
        return out_P

    def follow(self, parameters: Parameters, start: int, end: int) -> None:
        """Move the weights from ``start`` to ``end`` steps along the path; where one factor does, without a vector."""
        if self._straight:
            parameters.add(self.step_P, float(end - start))
        elif len(self.growth) == 1:
            parameters.add(self.step_P, self.growth[0] ** start * reach(self.growth[0], end - start))
        else:
            parameters.add(self.change(start, end))

    def kept(self) -> "Proposal":
        """The same path with a vector of its own, which outlives the predictor's borrowed memory."""
        return msgspec.structs.replace(self, step_P=self.step_P.clone())

    def followed(self) -> "Proposal":
        """The path without its vector: norms and losses are all that is wanted once the weights have moved."""
        return msgspec.structs.replace(self, step_P=self.step_P.new_empty(0))

    def norm_at(self, step: int) -> float:
        """L2 norm of the step after ``step`` steps along the path."""
        if self._straight:
            return self.step_norm
        if len(self.growth) == 1:
            return self.step_norm * self.growth[0] ** step
        return math.hypot(*(n * rho**step for n, rho in zip(self.group_norms, self.growth, strict=True)))

    def length(self, start: int, end: int) -> float:
        """L2 norm of ``change(start, end)``."""
        if self._straight:
            return self.step_norm * (end - start)
        norms = self.group_norms or (self.step_norm,)
        return math.hypot(
            *(n * rho**start * reach(rho, end - start) for n, rho in zip(norms, self.growth, strict=True))
        )

    def lengths(self, sizes: Sequence[int], steps: int) -> Tensor:
        """L2 norms (J,) of ``change(0, steps)`` in parts of so many scalars, which need not be the groups."""
        ends_J, ends_G = list(accumulate(sizes)), list(accumulate(self.sizes or (self.step_P.numel(),)))
        cuts = sorted({*ends_J, *ends_G})
        parts = self.step_P.split([end - start for start, end in pairwise([0, *cuts])])
        reaches = [reach(self.growth[bisect_left(ends_G, end)], steps) for end in cuts]
        norms_K = torch.stack(torch._foreach_mul(torch._foreach_norm(list(parts)), reaches))
        owner_K = torch.tensor([bisect_left(ends_J, end) for end in cuts], device=norms_K.device)
        return norms_K.new_zeros(len(ends_J)).index_add_(0, owner_K, norms_K.square()).sqrt()

    def state_dict(self) -> dict[str, Any]:
        path = self.loss_path
        return {
            "step": self.step_P,
            "step_norm": self.step_norm,
            "growth": list(self.growth),
            "sizes": list(self.sizes),
            "group_norms": list(self.group_norms),
            "uncertainty": self.uncertainty,
            "loss_path": None if path is None else [list(path.ratio), list(path.deviation)],
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> "Proposal":
        path = state["loss_path"]
        return cls(
            state["step"].to(device),
            state["step_norm"],
            tuple(state["growth"]),
            tuple(state["sizes"]),
            tuple(state["group_norms"]),
            state["uncertainty"],
            None if path is None else LossPath(tuple(path[0]), tuple(path[1])),
        )


def reach(rho: float, steps: float) -> float:
    """(1 - rho^steps) / (1 - rho): how many first steps ``steps`` steps amount to; ``steps`` for rho = 1."""
    log_rho = math.log(rho)
    return steps if abs(log_rho) < 1e-9 else math.expm1(steps * log_rho) / math.expm1(log_rho)


def checked_proposal(proposal: object, predictor: object, like_P: Tensor) -> Proposal | None:
    """``proposal`` when the weights can follow it; None when there is none, or it stands still.

    ``like_P``: a vector of the right shape and device. Raises UserError saying what is wrong.
    """
    name = f"predictor {type(predictor).__name__}"
    if proposal is None:
        return None
    if not isinstance(proposal, Proposal):
        raise UserError(f"{name}: propose() returned {type(proposal).__name__} instead of a Proposal or None")
    if proposal.step_P.requires_grad:
        proposal = msgspec.structs.replace(proposal, step_P=proposal.step_P.detach())
    step_P = proposal.step_P
    for what, has, wants in (
        ("shape", tuple(step_P.shape), tuple(like_P.shape)),
        ("dtype", step_P.dtype, like_P.dtype),
        ("device", step_P.device, like_P.device),
    ):
        if has != wants:
            raise UserError(f"{name}: the proposal's step_P has {what} {has} instead of {wants}")
    if not 0 <= proposal.step_norm < math.inf or not math.isfinite(float(torch.linalg.vector_norm(step_P))):
        raise UserError(
            f"{name}: the proposal is not finite, or of negative length (norm of its first step: {proposal.step_norm})"
        )
    if proposal.uncertainty is not None and not 0 <= proposal.uncertainty < math.inf:
        raise UserError(f"{name}: the proposal's uncertainty is {proposal.uncertainty}: must be finite, 0 or more")
    _check_groups(proposal, name)
    return proposal if proposal.step_norm > 0 else None


def _check_groups(proposal: Proposal, name: str) -> None:
    groups = max(1, len(proposal.sizes))
    if len(proposal.growth) != groups:
        raise UserError(f"{name}: the proposal has {len(proposal.growth)} growth factors for {groups} groups")
    if proposal.sizes and (sum(proposal.sizes) != proposal.step_P.numel() or min(proposal.sizes) < 1):
        raise UserError(
            f"{name}: the proposal's group sizes add up to {sum(proposal.sizes)} of {proposal.step_P.numel()} scalars"
        )
    if not all(0.0 < rho <= 2.0 for rho in proposal.growth):
        raise UserError(f"{name}: growth {min(proposal.growth)}..{max(proposal.growth)} is outside ]0, 2]")
    path = proposal.loss_path
    if path is not None:
        numbers = (*path.ratio, *path.deviation)
        if not path.ratio or len(path.ratio) != len(path.deviation) or not all(map(math.isfinite, numbers)):
            raise UserError(f"{name}: the proposal's loss_path needs finite ratios, each with its deviation")
