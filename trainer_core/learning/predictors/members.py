"""An ensemble's networks side by side: layers with a leading member dimension, and what their answers amount to.

E members, N samples, J parameter groups, B basis vectors. A member's answer in a group is u_i, coefficients in units of
b_0's norm, and rho: the change after k steps is S_k(rho) sum_i u_i b_i norm(b_0) / norm(b_i), S_k as in ``reach``.
"""

import math
from collections.abc import Sequence

import msgspec
import torch
from torch import Tensor
from torch.nn import functional as F

from trainer_core.learning.predictors.basis import VECTORS
from trainer_core.learning.predictors.encoding import cosines
from trainer_core.learning.predictors.history import Blocks

OUT = VECTORS + 1
_LARGEST = 3.0
_GROUP_SHARE = 0.1
"""Weight of the groups' mean error beside the error of the whole change: small groups count a little, too."""


class Answer(msgspec.Struct, frozen=True):
    """What a network says of the block that has just begun."""

    u_EJB: Tensor
    log_rho_EJ: Tensor
    loss_EK: Tensor
    """Expected log change of the loss over the 1st, 2nd, ... block from here."""
    variance_EK: Tensor

    @property
    def fields(self) -> list[Tensor]:
        return [self.u_EJB, self.log_rho_EJ, self.loss_EK, self.variance_EK]


class Dense:
    """One linear layer of every member: (E, N, in) -> (E, N, out). ``gain`` 0.1: members start near each other."""

    def __init__(self, members: int, inputs: int, outputs: int, generator: torch.Generator, gain: float = 1.0) -> None:
        bound = gain * math.sqrt(3.0 / inputs)
        device = generator.device
        uniform = torch.rand(members, inputs, outputs, generator=generator, device=device)
        self.weight = (uniform * (2 * bound) - bound).requires_grad_()
        self.bias = torch.zeros(members, 1, outputs, device=device, requires_grad=True)

    def __call__(self, x_ENI: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x_ENI, self.weight)

    @property
    def tensors(self) -> list[Tensor]:
        return [self.weight, self.bias]


def coefficients(out: Tensor) -> tuple[Tensor, Tensor]:
    """Raw outputs (..., 5) -> (u (..., B), log rho (...)); zeros mean the optimizer's own step, hardly shrinking."""
    first = torch.zeros(VECTORS, device=out.device)
    first[0] = 1.0
    u = first + _LARGEST * torch.tanh(out[..., :VECTORS] / _LARGEST)
    return u, (-F.softplus(4.0 * out[..., VECTORS] - 5.0)).clamp(-3.0, -1e-5)


def reaches(log_rho: Tensor, steps: float) -> Tensor:
    """S_k(rho) = (1 - rho^k) / (1 - rho), for log rho < 0."""
    return torch.expm1(steps * log_rho) / torch.expm1(log_rho)


def fit_error(blocks: Blocks, u_ENJB: Tensor, log_rho_ENJ: Tensor, half: int, window: int) -> Tensor:
    """Squared error of the predicted over the squared norm of the actual change, at W/2 and W: the mean, (E, N).

    ``blocks`` hold (E, N, ...). Only inner products: 0 is perfect, 1 is what standing still costs.
    """
    quadratic = torch.einsum("enji,enjik,enjk->enj", u_ENJB, blocks.cosines_NJBB, u_ENJB)
    total = torch.zeros((), device=u_ENJB.device)
    for k, steps in enumerate((half, window)):
        reach_ENJ = reaches(log_rho_ENJ, steps)
        cross = (u_ENJB * blocks.cross_NJ2B[..., k, :]).sum(-1)
        energy = blocks.energy_NJ2[..., k]
        error = reach_ENJ.square() * quadratic - 2 * reach_ENJ * cross + energy
        whole = (blocks.share_NJ * error).sum(-1) / (blocks.share_NJ * energy).sum(-1).clamp_min(1e-12)
        groups = (
            torch.where(energy > 0, error / energy.clamp_min(1e-12), torch.zeros_like(error)).clamp_max(10.0).mean(-1)
        )
        total = total + 0.5 * (whole + _GROUP_SHARE * groups)
    return total


def surprise(actual: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Negative log-likelihood of a Gaussian, without its constant."""
    log_variance = log_variance.clamp(-12.0, 2.0)
    return 0.5 * (log_variance + (actual - mean).square() * torch.exp(-log_variance))


def spread(answer: Answer, gram_JBB: Tensor, steps: int) -> float:
    """How far the members' changes over ``steps`` lie from their mean: root mean square over the mean's norm."""
    cosines_JBB, norms_JB = cosines(gram_JBB)
    path_EJB = answer.u_EJB * reaches(answer.log_rho_EJ, steps)[..., None]
    mean_JB = path_EJB.mean(0)
    apart_EJB = path_EJB - mean_JB
    weight_J = norms_JB[:, 0].square()
    apart = (torch.einsum("eji,jik,ejk->ej", apart_EJB, cosines_JBB, apart_EJB).clamp_min(0) * weight_J).sum(1).mean()
    size = (torch.einsum("ji,jik,jk->j", mean_JB, cosines_JBB, mean_JB).clamp_min(0) * weight_J).sum()
    return float((apart / size.clamp_min(1e-30)).sqrt())


def together(answers: Sequence[Answer]) -> Answer:
    """The answers of several networks as those of one ensemble."""
    return Answer(*(torch.cat(parts) for parts in zip(*(answer.fields for answer in answers), strict=True)))
