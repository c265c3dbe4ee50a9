"""The few vectors a learned predictor combines, and what the weights then did, as inner products. Knows no network.

Observed steps are cut into blocks of W. At each block's start, in every group j of parameters:
    b_0  the optimizer's own next step (Adam: masked by noise; SGD: its momentum; the mean where neither exists)
    b_1  the mean change of the block before
    b_2  that mean minus its slow average (EMA difference: which way the path bends)
    b_3  the mean residual of the block before
During the block D is what the weights really did: after W/2 steps and after W. Training needs no vector of P:
    |D - sum c_i b_i|^2 = c'Gc - 2 c'a + e      G = <b, b>, a = <b, D>, e = <D, D>      per group, once in a block
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import torch
from torch import Tensor

from trainer_core.learning.parameters import Parameters
from trainer_core.learning.predictors.directions import adam_into, momentum_into
from trainer_core.spec.config import PredictorConfig

VECTORS = 4
_MOST_GROUPS = 64
_SLOW = 0.25
"""Weight of the newest block in the slow average."""


class RawBlock(msgspec.Struct, frozen=True):
    """One finished block, on the parameters' device. J groups, B = 4 vectors, two times: W/2 and W."""

    gram_JBB: Tensor
    cross_J2B: Tensor
    energy_J2: Tensor


class Basis:
    """See the module. Memory: 7 vectors of P: 4 of the basis, running sum, slow average, prediction.

    The residual lives in borrowed memory, or is an eighth.
    """

    def __init__(self, parameters: Parameters, optimizer: torch.optim.Optimizer, config: PredictorConfig) -> None:
        self._parameters, self._optimizer = parameters, optimizer
        self._noise_mask, self.window = config.noise_mask, config.window
        self.half = self.window // 2
        self.sizes = grouped(parameters.sizes)
        self.vectors_BP = torch.zeros(VECTORS, parameters.count, device=parameters.device)
        self._sum_P, self._slow_P = parameters.empty(), parameters.empty()
        self.predicted_P = parameters.empty()
        """What the block is predicted to do in one step."""
        self.work_P: Tensor | None = None
        """Borrowed memory for the residual and the proposal; may be the ``delta_P`` of ``observe``."""
        self.gram_JBB = torch.zeros(len(self.sizes), VECTORS, VECTORS, device=parameters.device)
        self._half_J = [self.gram_JBB[:, 0], self.gram_JBB[:, 0, 0]]
        self.in_block = self.blocks = 0

    @torch.no_grad()
    def observe(self, delta_P: Tensor) -> tuple[Tensor, RawBlock | None]:
        """Take in one step's change, shape (P,): its residual, and a block when it ends one that had a basis.

        Waits for nothing.
        """
        self._sum_P.add_(delta_P)
        residual_P = torch.sub(delta_P, self.predicted_P, out=self.work_P)
        self.in_block += 1
        if self.in_block == self.half:
            self._half_J = list(self._products())
        if self.in_block < self.window:
            return residual_P, None
        cross_JB, energy_J = self._products()
        raw = RawBlock(
            self.gram_JBB,
            torch.stack([self._half_J[0], cross_JB], dim=1),
            torch.stack([self._half_J[1], energy_J], dim=1),
        )
        self._begin_block()
        return residual_P, raw if self.blocks > 1 else None

    def _products(self) -> tuple[Tensor, Tensor]:
        """(<b, D>, <D, D>) of every group, D the change since the block began."""
        pairs = list(zip(self.vectors_BP.split(self.sizes, 1), self._sum_P.split(self.sizes), strict=True))
        return torch.stack([b_BP @ d_P for b_BP, d_P in pairs]), torch.stack([torch.dot(d_P, d_P) for _, d_P in pairs])

    def _begin_block(self) -> None:
        optimizer_P, mean_P, bend_P, error_P = self.vectors_BP
        torch.div(self._sum_P, self.window, out=mean_P)
        if self.blocks:
            torch.sub(mean_P, self.predicted_P, out=error_P)
            torch.sub(mean_P, self._slow_P, out=bend_P)
        self._slow_P.lerp_(mean_P, _SLOW if self.blocks else 1.0)
        self.optimizer_step(optimizer_P)
        self.gram_JBB = gram(self.vectors_BP, self.sizes)
        self._sum_P.zero_()
        self.in_block, self.blocks = 0, self.blocks + 1

    @torch.no_grad()
    def optimizer_step(self, out_P: Tensor) -> None:
        """Write b_0 as it is now into ``out_P`` (P,)."""
        out_P.copy_(self.vectors_BP[1])
        momentum_into(out_P, self._parameters, self._optimizer)
        adam_into(out_P, self._parameters, self._optimizer, self._noise_mask)

    @torch.no_grad()
    def now(self) -> tuple[tuple[Tensor, ...], Tensor]:
        """(the B vectors (P,), gram (J, B, B)) with the optimizer's step as it is now, in borrowed memory."""
        step_P = self._parameters.empty() if self.work_P is None else self.work_P
        self.optimizer_step(step_P)
        vectors = (step_P, *self.vectors_BP[1:])
        return vectors, gram(vectors, self.sizes)

    def state_dict(self) -> dict[str, Any]:
        return {
            "vectors": self.vectors_BP,
            "sum": self._sum_P,
            "slow": self._slow_P,
            "predicted": self.predicted_P,
            "gram": self.gram_JBB,
            "half": list(self._half_J),
            "in_block": self.in_block,
            "blocks": self.blocks,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, own in (
            ("vectors", self.vectors_BP),
            ("sum", self._sum_P),
            ("slow", self._slow_P),
            ("predicted", self.predicted_P),
        ):
            own.copy_(state[name])
        device = self.vectors_BP.device
        self.gram_JBB = state["gram"].to(device, copy=True)
        self._half_J = [part.to(device, copy=True) for part in state["half"]]
        self.in_block, self.blocks = state["in_block"], state["blocks"]


def grouped(sizes: list[int]) -> list[int]:
    """Parameter tensors as groups: one each, neighbours together where there are more than 64."""
    each = -(-len(sizes) // _MOST_GROUPS)
    return [sum(sizes[i : i + each]) for i in range(0, len(sizes), each)]


def _by_group(vectors: Tensor | Sequence[Tensor], sizes: list[int]) -> Iterator[Tensor]:
    """The part (B, P_j) of B vectors in each group, one after the other; copied where they are no matrix (B, P)."""
    if isinstance(vectors, Tensor):
        yield from vectors.split(sizes, 1)
        return
    for parts in zip(*(vector_P.split(sizes) for vector_P in vectors), strict=True):
        yield torch.stack(parts)


def gram(vectors: Tensor | Sequence[Tensor], sizes: list[int]) -> Tensor:
    """Inner products of the vectors (P,), or of the rows of a matrix (B, P), within each group: (J, B, B)."""
    return torch.stack([part_BP @ part_BP.T for part_BP in _by_group(vectors, sizes)])


def combined(
    vectors: Tensor | Sequence[Tensor], weights_JB: Tensor, sizes: list[int], out_P: Tensor | None = None
) -> Tensor:
    """sum_i weights_ji b_i in every group j, shape (P,); ``out_P`` may be one of the vectors."""
    out_P = torch.empty_like(vectors[0]) if out_P is None else out_P
    for w_B, part_BP, out in zip(weights_JB, _by_group(vectors, sizes), out_P.split(sizes), strict=True):
        out.copy_(w_B @ part_BP)
    return out_P
