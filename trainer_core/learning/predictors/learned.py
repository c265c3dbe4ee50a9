"""A predictor that learns online how the weights move: basis, history and a network. Knows no clock: others pace it.

observe   every step: one running sum; once a block: the basis anew, and what it came to, in inner products
train     one gradient step of the network on the history, then its answer on the block that has just begun
propose   the network's latest answer applied to the basis as it is now; before the first answer, the optimizer's step
"""

import math
from collections import deque
from typing import Any, Protocol

import msgspec
import torch
from torch import Tensor

from trainer_core.learning.parameters import Parameters
from trainer_core.learning.predictors import LossPath, Observation, Proposal, TrainingState
from trainer_core.learning.predictors.basis import Basis, RawBlock, combined
from trainer_core.learning.predictors.encoding import cosines
from trainer_core.learning.predictors.history import Blocks, History
from trainer_core.learning.predictors.members import Answer, reaches, spread, together
from trainer_core.learning.predictors.mlp import MLPNetwork
from trainer_core.learning.predictors.rssm import RSSMNetwork
from trainer_core.spec.config import PredictorConfig

_FEWEST = 4
"""Blocks before the network learns anything."""
_SEED = 20
_MOST_PENDING = 64
_CLIP = 1.0


class Network(Protocol):
    """What the two networks have in common."""

    rate: float
    tensors: list[Tensor]

    def loss(self, blocks: Blocks, half: int, window: int) -> Tensor:
        """A scalar to descend."""
        ...

    def answer(self, blocks: Blocks, global_F: Tensor, group_JG: Tensor) -> Answer:
        """On the block that has just begun."""
        ...


class Learned:
    """MLP or RSSM, one or several members. Memory: 7 models (``Basis``), and the network (see there), float32.

    Its random numbers are its own: the run's dropout and data are the same with and without it.
    """

    def __init__(self, parameters: Parameters, optimizer: torch.optim.Optimizer, config: PredictorConfig) -> None:
        self._config = config
        self._basis = Basis(parameters, optimizer, config)
        self._history = History(self._basis.sizes, parameters.device)
        self._generator = torch.Generator(device=parameters.device).manual_seed(_SEED)
        self._pending: deque[tuple[RawBlock, list[TrainingState], list[TrainingState]]] = deque(maxlen=_MOST_PENDING)
        self._before: list[TrainingState] = []
        self._during: list[TrainingState] = []
        self._networks: list[tuple[Network, torch.optim.Adam]] = []
        self._answers: list[Answer] = []
        """Of each network, when it was trained last."""
        self._answer: Answer | None = None
        """All of them together."""
        self.units = 0
        """Gradient steps of the network so far."""

    # -- observing --------------------------------------------------------------------------------------------------

    def borrow(self, work_P: Tensor) -> None:
        """Residual and proposal go into ``work_P``, which may be the ``delta_P`` of ``observe``."""
        self._basis.work_P = work_P

    @torch.no_grad()
    def observe(self, delta_P: Tensor, state: TrainingState) -> Observation:
        basis = self._basis
        known = basis.blocks > 0
        if state.step > 0:
            self._during.append(state)
        residual_P, raw = basis.observe(delta_P)
        norm = torch.linalg.vector_norm(residual_P) if known else None
        if basis.in_block == 0:
            if raw is not None:
                self._pending.append((raw, self._before, self._during))
            self._before, self._during = self._during, []
            self._expect()
        return Observation(None, residual_P if known else None, norm)

    def _expect(self) -> None:
        """What one step of the block that has just begun should do, on average over the block."""
        weights_JB = self._weights(self._basis.gram_JBB)
        if self._answer is not None:
            mean_J = reaches(self._answer.log_rho_EJ, self._basis.window).mean(0) / self._basis.window
            weights_JB = weights_JB * mean_J[:, None]
        combined(self._basis.vectors_BP, weights_JB, self._basis.sizes, self._basis.predicted_P)

    def _weights(self, gram_JBB: Tensor) -> Tensor:
        """Coefficients (J, B) of the basis vectors themselves, the members' mean."""
        _, norms_JB = cosines(gram_JBB)
        main_J1 = norms_JB[:, :1]
        scale_JB = torch.where(norms_JB > 0, main_J1 / norms_JB.clamp_min(1e-30), torch.zeros_like(norms_JB))
        if self._answer is None:
            first_JB = torch.zeros_like(scale_JB)
            first_JB[:, 0] = 1.0
            return first_JB
        return self._answer.u_EJB.mean(0) * scale_JB.clamp_max(1e3)

    # -- training ---------------------------------------------------------------------------------------------------

    @property
    def unit_flops(self) -> float:
        if len(self._history) + len(self._pending) < _FEWEST:
            return 0.0
        config, groups = self._config, len(self._basis.sizes)
        if config.type == "RSSM":
            return RSSMNetwork.flops(config, groups)
        return MLPNetwork.flops(config.ensemble_size, groups)

    def train(self) -> None:
        """One gradient step of one network and its new answer; waits for the device, so it belongs between steps.

        The members of an MLP ensemble learn at once, those of the RSSM, which are large, in turn.
        """
        self._drain()
        if len(self._history) < _FEWEST:
            return
        count = self._config.ensemble_size if self._config.type == "RSSM" else 1
        turn = self.units % count
        if turn == len(self._networks):
            self._networks.append(self._made())
        network, adam = self._networks[turn]
        blocks = self._history.stacked()
        with torch.enable_grad():
            loss = network.loss(blocks, self._basis.half, self._basis.window)
            gradients = torch.autograd.grad(loss, network.tensors)
        for tensor, gradient in zip(network.tensors, gradients, strict=True):
            tensor.grad = gradient
        torch.nn.utils.clip_grad_norm_(network.tensors, _CLIP)
        adam.step()
        self.units += 1
        with torch.no_grad():
            answer = network.answer(blocks, *self._history.latest(self._basis.gram_JBB, self._before))
        self._answers[turn : turn + 1] = [answer]
        self._answer = together(self._answers)

    def _made(self) -> tuple[Network, torch.optim.Adam]:
        config = self._config
        network: Network = (
            RSSMNetwork(config, self._generator)
            if config.type == "RSSM"
            else MLPNetwork(config.ensemble_size, self._generator)
        )
        return network, torch.optim.Adam(network.tensors, network.rate)

    def _drain(self) -> None:
        while self._pending:
            self._history.add(*self._pending.popleft())

    # -- proposing --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def propose(self, state: TrainingState) -> Proposal | None:
        self._drain()
        vectors, gram_JBB = self._basis.now()
        step_P = combined(vectors, self._weights(gram_JBB), self._basis.sizes, vectors[0])
        answer = self._answer
        growth = [1.0] if answer is None else answer.log_rho_EJ.mean(0).exp().tolist()
        proposal = Proposal.along(
            step_P,
            growth,
            () if answer is None else self._basis.sizes,
            uncertainty=self._spread(gram_JBB),
            loss_path=None if answer is None else loss_path(answer, self._basis.window),
        )
        return proposal if math.isfinite(proposal.step_norm) and proposal.step_norm > 0 else None

    def _spread(self, gram_JBB: Tensor) -> float | None:
        if self._answer is None or len(self._answer.u_EJB) < 2:
            return None
        return spread(self._answer, gram_JBB, self._basis.window)

    # -- state ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Networks only once they have learned: before, the random numbers make them again."""
        self._drain()
        return {
            "basis": self._basis.state_dict(),
            "history": self._history.state_dict(),
            "states": [[_plain(s) for s in states] for states in (self._before, self._during)],
            "random": self._generator.get_state(),
            "units": self.units,
            "networks": [[t.detach() for t in network.tensors] for network, _ in self._networks],
            "adams": [adam.state_dict() for _, adam in self._networks],
            "answers": [answer.fields for answer in self._answers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._basis.load_state_dict(state["basis"])
        self._history.load_state_dict(state["history"])
        self._pending.clear()
        self._before, self._during = ([_state(s) for s in states] for states in state["states"])
        self._networks = [self._made() for _ in state["networks"]]
        for (network, adam), saved, moments in zip(self._networks, state["networks"], state["adams"], strict=True):
            with torch.no_grad():
                torch._foreach_copy_(network.tensors, saved)
            adam.load_state_dict(moments)
        self._generator.set_state(state["random"].cpu())
        self.units = state["units"]
        device = self._basis.vectors_BP.device
        self._answers = [Answer(*(t.to(device, copy=True) for t in fields)) for fields in state["answers"]]
        self._answer = together(self._answers) if self._answers else None


def loss_path(answer: Answer, window: int) -> LossPath:
    """Log changes by block -> ratios by step, straight (in the logarithm) within a block; variances add up.

    The members' Gaussians are a mixture: its variance is their mean variance and the variance of their means.
    """
    ratios, deviations = [], []
    total = variance = 0.0
    variance_K = answer.variance_EK.mean(0) + answer.loss_EK.var(0, correction=0)
    for change, uncertain in zip(answer.loss_EK.mean(0).tolist(), variance_K.tolist(), strict=True):
        for step in range(1, window + 1):
            part = step / window
            ratio = math.exp(max(-5.0, min(5.0, total + part * change)))
            ratios.append(ratio)
            deviations.append(ratio * math.sqrt(variance + part * uncertain))
        total, variance = total + change, variance + uncertain
    return LossPath(tuple(ratios), tuple(deviations))


def _plain(state: TrainingState) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(state)
    return plain


def _state(plain: dict[str, Any]) -> TrainingState:
    return msgspec.convert(plain, TrainingState)
