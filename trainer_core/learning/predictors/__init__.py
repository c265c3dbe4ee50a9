"""What a predictor is, and which ones there are. A predictor sees weights, optimizer and floats, never files."""

from typing import Any, Protocol, runtime_checkable

import msgspec
import torch
from torch import Tensor

from trainer_core.learning.parameters import Parameters
from trainer_core.learning.predictors.proposal import LossPath, Proposal
from trainer_core.learning.training_state import TrainingState
from trainer_core.spec.config import PredictorConfig
from trainer_core.spec.errors import ConfigError, UserError

__all__ = [
    "Borrower",
    "LossPath",
    "Observation",
    "Predictor",
    "Proposal",
    "Trainable",
    "TrainingState",
    "make_predictor",
]


class Observation(msgspec.Struct, frozen=True):
    """What one full step taught."""

    relative_error: Tensor | None
    """norm(actual - predicted) / norm(actual), no dimension; None when nothing had been predicted yet."""
    residual_P: Tensor | None
    """actual - predicted, shape (P,); valid until the next call, and no longer than until the next full step."""
    residual_norm: Tensor | None = None
    """norm(actual - predicted), no dimension, instead of the relative error: the engine has norm(actual) already."""


class Predictor(Protocol):
    """Learns how weights move and proposes how they will. One of a user's own may be passed to the trainer."""

    def observe(self, delta_P: Tensor, state: TrainingState) -> Observation:
        """Learn from the weight change of one full step, shape (P,), float32, valid during the call only.

        ``state`` is the training as the step *before* left it: this step's floats are not on the host yet. Nothing
        here may wait for the device.
        """
        ...

    def propose(self, state: TrainingState) -> Proposal | None:
        """The path from the present weights; None when nothing is known yet. ``state``: after the last step."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that going on bit for bit needs: tensors, numbers, strings, lists and dicts of them."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        ...


@runtime_checkable
class Trainable(Protocol):
    """A predictor that also learns by gradient steps of its own, called between steps within a time budget."""

    def train(self) -> None:
        """One short unit of training on what was observed; returns at once when there is nothing to learn from."""
        ...

    @property
    def unit_flops(self) -> float:
        """Floating point operations of one ``train``, roughly: a first guess of its time. 0: nothing to do yet."""
        ...


@runtime_checkable
class Borrower(Protocol):
    """A predictor that works in memory of the engine's, so that residual and proposal cost no vector of their own."""

    def borrow(self, work_P: Tensor) -> None:
        """``work_P`` (P,) is the predictor's from ``observe`` on, whose ``delta_P`` it is, until the next full step.

        What it holds then is lost: a proposal that must live longer is copied by whoever keeps it.
        """
        ...


_METHODS = ("observe", "propose", "state_dict", "load_state_dict")


def checked_predictor(predictor: object) -> Predictor:
    """``predictor`` when it has the methods of one. Raises UserError naming what is missing."""
    missing = [name for name in _METHODS if not callable(getattr(predictor, name, None))]
    if missing:
        raise UserError(
            f"predictor: {type(predictor).__name__} has no {', no '.join(f'{name}()' for name in missing)}; "
            "see trainer_core.learning.predictors.Predictor"
        )
    return predictor  # type: ignore[return-value]


def checked_observation(observation: object, predictor: object, like_P: Tensor) -> Observation:
    """``observation`` when it can be used, without the graph of the predictor's own gradients.

    ``like_P``: a vector of the right shape and device. Raises UserError saying what is wrong with it.
    """
    name = f"predictor {type(predictor).__name__}"
    if not isinstance(observation, Observation):
        raise UserError(f"{name}: observe() returned {type(observation).__name__} instead of an Observation")
    error, residual_P = observation.relative_error, observation.residual_P
    norm, number = observation.residual_norm, torch.Size()
    for what, value, shape in (
        ("relative_error", error, number),
        ("residual_norm", norm, number),
        ("residual_P", residual_P, like_P.shape),
    ):
        if value is None:
            continue
        if not isinstance(value, Tensor):
            raise UserError(f"{name}: {what} is a {type(value).__name__} instead of a Tensor or None")
        if value.numel() != shape.numel() or value.dim() > 1:
            raise UserError(f"{name}: {what} has shape {tuple(value.shape)} instead of {tuple(shape)}")
        if value.device != like_P.device:
            raise UserError(f"{name}: {what} is on {value.device} instead of {like_P.device}")
    if error is not None and (error.dim() or error.requires_grad):
        observation = msgspec.structs.replace(observation, relative_error=error.detach().reshape(()))
    if norm is not None and (norm.dim() or norm.requires_grad):
        observation = msgspec.structs.replace(observation, residual_norm=norm.detach().reshape(()))
    if residual_P is not None and residual_P.requires_grad:
        observation = msgspec.structs.replace(observation, residual_P=residual_P.detach())
    return observation


def make_predictor(config: PredictorConfig, parameters: Parameters, optimizer: torch.optim.Optimizer) -> Predictor:
    """The predictor that ``predictor_config.type`` names. Raises ConfigError for an ensemble of straight lines."""
    if config.type == "Linear":
        from trainer_core.learning.predictors.linear import Linear

        if config.ensemble_size > 1:
            raise ConfigError(
                f"[predictor_config] ensemble_size = {config.ensemble_size}: Linear's members "
                "would all be the same line; use 1, or type = 'MLP' or 'RSSM'"
            )
        return Linear(parameters, optimizer, config)
    from trainer_core.learning.predictors.learned import Learned

    return Learned(parameters, optimizer, config)
