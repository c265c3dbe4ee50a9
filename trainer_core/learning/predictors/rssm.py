"""The RSSM: a recurrent world model of the training, one tick a block. Knows no weights of the model it watches.

h_t = GRU(h_t-1, z_t-1)            deterministic state, deterministic_dim
z_t ~ posterior(h_t, o_t)          stochastic_dim variables of num_categoricals classes, straight-through, 1 % uniform
z_t ~ prior(h_t)                   where nothing is observed: how the loss path is rolled out
(h_t, z_t) -> o_t, log change of the loss over the block before t (mean, log variance);  with a group's features: u, rho
loss = |o - o'|^2 / 2 + 0.1 surprise(loss change) + 10 fit error + KL balance
KL balance = 0.5 KL(sg q | p) + 0.1 KL(q | sg p), each KL at least 1 nat
Source: Hafner et al. 2023, "Mastering Diverse Domains through World Models" (DreamerV3).
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
from trainer_core.spec.config import PredictorConfig

_NARROW = 128
"""Widest layer between the latent and the rest."""
_SEQUENCES, _LENGTH = 4, 8
_PATH = 16
_FIT = 10.0
"""Weight of the fit error: it is what the proposals are judged by, and smaller than the rest."""
_FREE, _DYNAMICS, _REPRESENTATION, _UNIMIX = 1.0, 0.5, 0.1, 0.01


class RSSMNetwork:
    """One world model (E = 1); memory and time depend on the document's dimensions, not on the model it watches.

    Memory: 3 float32 (weight and Adam's moments) for each of about ``flops`` / 200 weights.
    """

    rate = 3e-3

    def __init__(self, config: PredictorConfig, generator: torch.Generator) -> None:
        members, self._deter = 1, config.deterministic_dim
        self._members, self._generator = members, generator
        self._variables, self._classes = config.stochastic_dim, config.num_categoricals
        latent, narrow = self._variables * self._classes, min(_NARROW, self._deter)

        def dense(inputs: int, outputs: int, gain: float = 1.0) -> Dense:
            return Dense(members, inputs, outputs, generator, gain)

        self._observed = dense(GLOBAL, narrow)
        self._latent_in = dense(latent, narrow)
        self._gates = dense(narrow + self._deter, 3 * self._deter)
        self._prior_in, self._prior_out = dense(self._deter, narrow), dense(narrow, latent)
        self._posterior_in, self._posterior_out = dense(self._deter + narrow, narrow), dense(narrow, latent)
        self._trunk = dense(self._deter + narrow, narrow)
        self._decoder, self._loss_head = dense(narrow, GLOBAL), dense(narrow, 2, gain=0.1)
        self._group_in, self._head = dense(narrow + GROUP, narrow), dense(narrow, OUT, gain=0.3)
        layers = [layer for layer in vars(self).values() if isinstance(layer, Dense)]
        self.tensors = [t for layer in layers for t in layer.tensors]

    @staticmethod
    def flops(config: PredictorConfig, groups: int) -> float:
        """Of one training unit: 6 for each weight and tick of the sequences, and 2 in rolling out an answer."""
        deter, latent = config.deterministic_dim, config.stochastic_dim * config.num_categoricals
        narrow = min(_NARROW, deter)
        tick = narrow * (3 * latent + 4 * deter + 3 * narrow + 2 * GLOBAL) + 3 * deter * (narrow + deter)
        heads = groups * narrow * (narrow + GROUP + OUT)
        return 6.0 * _SEQUENCES * _LENGTH * (tick + heads) + 2.0 * (_LENGTH + _PATH) * tick

    # -- one tick ---------------------------------------------------------------------------------------------------

    def _begin(self, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        latent = self._variables * self._classes
        return (
            torch.zeros(self._members, count, self._deter, device=device),
            torch.zeros(self._members, count, latent, device=device),
        )

    def _recur(self, h_END: Tensor, z_ENZ: Tensor) -> Tensor:
        x = F.silu(self._latent_in(z_ENZ))
        reset, candidate, update = self._gates(torch.cat([x, h_END], -1)).chunk(3, -1)
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        update = torch.sigmoid(update - 1.0)
        return update * candidate + (1 - update) * h_END

    def _prior(self, h_END: Tensor) -> Tensor:
        return self._probabilities(self._prior_out(F.silu(self._prior_in(h_END))))

    def _posterior(self, h_END: Tensor, o_ENF: Tensor) -> Tensor:
        seen = torch.cat([h_END, F.silu(self._observed(o_ENF))], -1)
        return self._probabilities(self._posterior_out(F.silu(self._posterior_in(seen))))

    def _probabilities(self, logits_ENZ: Tensor) -> Tensor:
        shape = (*logits_ENZ.shape[:2], self._variables, self._classes)
        return logits_ENZ.reshape(shape).softmax(-1) * (1 - _UNIMIX) + _UNIMIX / self._classes

    def _sampled(self, p_ENVC: Tensor) -> Tensor:
        """One-hot samples whose gradient is that of the probabilities, (E, N, V C)."""
        noise = torch.empty_like(p_ENVC).exponential_(generator=self._generator)
        hard = F.one_hot((p_ENVC.detach() / noise).argmax(-1), self._classes).to(p_ENVC.dtype)
        return (hard + p_ENVC - p_ENVC.detach()).flatten(2)

    def _likeliest(self, p_ENVC: Tensor) -> Tensor:
        return F.one_hot(p_ENVC.argmax(-1), self._classes).to(p_ENVC.dtype).flatten(2)

    def _features(self, h_END: Tensor, z_ENZ: Tensor) -> Tensor:
        return F.silu(self._trunk(torch.cat([h_END, F.silu(self._latent_in(z_ENZ))], -1)))

    def _coefficients(self, feature_ENH: Tensor, group_ENJG: Tensor) -> tuple[Tensor, Tensor]:
        members, count, groups, _ = group_ENJG.shape
        wide = feature_ENH[:, :, None, :].expand(-1, -1, groups, -1)
        x = torch.cat([wide, group_ENJG], -1).reshape(members, count * groups, -1)
        return coefficients(self._head(F.silu(self._group_in(x))).reshape(members, count, groups, OUT))

    # -- learning and answering -------------------------------------------------------------------------------------

    def loss(self, blocks: Blocks, half: int, window: int) -> Tensor:
        """Of a few sequences of blocks, each member drawing its own, summed over the members."""
        count = len(blocks.loss_N)
        length = min(_LENGTH, count)
        device = blocks.loss_N.device
        shape = (self._members, _SEQUENCES)
        start_EN = torch.randint(count - length + 1, shape, generator=self._generator, device=device)
        h, z = self._begin(_SEQUENCES, device)
        total = torch.zeros((), device=device)
        for tick in range(length):
            taken = blocks[start_EN + tick]
            h = self._recur(h, z)
            prior, posterior = self._prior(h), self._posterior(h, taken.global_NF)
            z = self._sampled(posterior)
            feature = self._features(h, z)
            error = _FIT * fit_error(taken, *self._coefficients(feature, taken.group_NJG), half, window)
            error = (
                error + 0.5 * (self._decoder(feature) - taken.global_NF).square().mean(-1) + _balanced(posterior, prior)
            )
            if tick:
                before = blocks.loss_N[start_EN + tick - 1]
                loss_EN2 = self._loss_head(feature)
                error = error + 0.1 * surprise(before, loss_EN2[..., 0], loss_EN2[..., 1])
            total = total + error.mean(1).sum()
        return total / length

    def answer(self, blocks: Blocks, global_F: Tensor, group_JG: Tensor) -> Answer:
        """Of the block that has just begun: the last blocks are observed, the coming ones rolled out by the prior."""
        members = self._members
        h, z = self._begin(1, global_F.device)
        for seen_F in (*blocks.global_NF[-(_LENGTH - 1) :], global_F):
            h = self._recur(h, z)
            z = self._likeliest(self._posterior(h, seen_F.expand(members, 1, -1)))
        u, log_rho = self._coefficients(self._features(h, z), group_JG.expand(members, 1, *group_JG.shape))
        heads = []
        for _ in range(_PATH):
            h = self._recur(h, z)
            z = self._likeliest(self._prior(h))
            heads.append(self._loss_head(self._features(h, z))[:, 0])
        heads_EK2 = torch.stack(heads, 1)
        return Answer(u[:, 0], log_rho[:, 0], heads_EK2[..., 0], heads_EK2[..., 1].clamp(-12.0, 2.0).exp())


def _balanced(posterior: Tensor, prior: Tensor) -> Tensor:
    """KL balance with free nats: the prior follows the posterior five times as fast as the other way round, (E, N)."""
    dynamics = _kl(posterior.detach(), prior).clamp_min(_FREE)
    representation = _kl(posterior, prior.detach()).clamp_min(_FREE)
    return _DYNAMICS * dynamics + _REPRESENTATION * representation


def _kl(p_ENVC: Tensor, q_ENVC: Tensor) -> Tensor:
    return (p_ENVC * (p_ENVC.log() - q_ENVC.log())).sum((-1, -2))
