"""The MLP: features of one block's start -> coefficients of every group, and the loss. Knows no weights of the model.

x = (global features, group features) -> SiLU(64) -> SiLU(64) -> u, rho per group
the hidden layers' mean over the groups -> log change of the loss over the block: mean, log variance
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer_core.learning.predictors.encoding import GLOBAL, GROUP
from trainer_core.learning.predictors.history import Blocks
from trainer_core.learning.predictors.members import (
    OUT,
    Answer,
    Dense,
    coefficients,
    fit_error,
    surprise,
)

_HIDDEN, _BATCH, _PATH = 64, 16, 8


class MLPNetwork:
    """``members`` networks of about 10 000 weights each, whatever the size of the model they predict."""

    rate = 3e-3

    def __init__(self, members: int, generator: torch.Generator) -> None:
        self._members, self._generator = members, generator
        self._first = Dense(members, GLOBAL + GROUP, _HIDDEN, generator)
        self._second = Dense(members, _HIDDEN, _HIDDEN, generator)
        self._head = Dense(members, _HIDDEN, OUT, generator, gain=0.3)
        self._loss_head = Dense(members, _HIDDEN, 2, generator, gain=0.1)
        layers = (self._first, self._second, self._head, self._loss_head)
        self.tensors = [t for layer in layers for t in layer.tensors]

    @staticmethod
    def flops(members: int, groups: int) -> float:
        """Of one training unit."""
        weights = (GLOBAL + GROUP) * _HIDDEN + _HIDDEN * _HIDDEN + _HIDDEN * OUT
        return 6.0 * weights * members * groups * _BATCH

    def loss(self, blocks: Blocks, half: int, window: int) -> Tensor:
        """Of one minibatch, each member drawing its own blocks (a bootstrap), summed over the members."""
        count = len(blocks.loss_N)
        drawn_EN = torch.randint(
            count,
            (self._members, min(_BATCH, count)),
            generator=self._generator,
            device=blocks.loss_N.device,
        )
        taken = blocks[drawn_EN]
        u, log_rho, loss_EN2 = self._forward(taken.global_NF, taken.group_NJG)
        errors_EN = fit_error(taken, u, log_rho, half, window)
        errors_EN = errors_EN + 0.1 * surprise(taken.loss_N, loss_EN2[..., 0], loss_EN2[..., 1])
        return errors_EN.mean(1).sum()

    def answer(self, blocks: Blocks, global_F: Tensor, group_JG: Tensor) -> Answer:
        """Of the block that has just begun. The loss is expected to go on at the rate of its first block."""
        members = self._members
        u, log_rho, loss_E12 = self._forward(
            global_F.expand(members, 1, -1), group_JG.expand(members, 1, *group_JG.shape)
        )
        variance = loss_E12[..., 1].clamp(-12.0, 2.0).exp().expand(-1, _PATH)
        return Answer(u[:, 0], log_rho[:, 0], loss_E12[..., 0].expand(-1, _PATH), variance)

    def _forward(self, global_ENF: Tensor, group_ENJG: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        members, count, groups, _ = group_ENJG.shape
        wide = global_ENF[:, :, None, :].expand(-1, -1, groups, -1)
        x = torch.cat([wide, group_ENJG], dim=-1).reshape(members, count * groups, -1)
        hidden = F.silu(self._second(F.silu(self._first(x))))
        u, log_rho = coefficients(self._head(hidden).reshape(members, count, groups, OUT))
        pooled = hidden.reshape(members, count, groups, -1).mean(2)
        return u, log_rho, self._loss_head(pooled)
