"""What a predictor is, and which ones there are. A predictor sees weights and optimizer, never phases or files."""

from typing import Any, Protocol

import msgspec
import torch
from torch import Tensor

from trainer_core.learning.parameters import Parameters
from trainer_core.spec.config import PredictorConfig
from trainer_core.spec.errors import ConfigError


class Observation(msgspec.Struct, frozen=True):
    """What one full step taught."""

    relative_error: Tensor | None
    """norm(actual - predicted) / norm(actual), no dimension; None when nothing had been predicted yet."""
    residual_P: Tensor | None
    """actual - predicted, shape (P,); valid until the next call."""


class Proposal(msgspec.Struct, frozen=True):
    """A path of weight changes: after k steps the weights are w + k * step_P."""

    step_P: Tensor
    """Predicted change of one step, shape (P,), float32."""
    step_norm: float

    def scaled(self, steps: float) -> Tensor:
        """Cumulative change after ``steps`` steps."""
        return self.step_P * steps


class Predictor(Protocol):
    """Learns how weights move and proposes how they will."""

    def observe(self, delta_P: Tensor) -> Observation:
        """Learn from the weight change of one full step, shape (P,)."""
        ...

    def propose(self) -> Proposal | None:
        """The path from here; None when nothing is known yet."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def make_predictor(config: PredictorConfig, parameters: Parameters, optimizer: torch.optim.Optimizer) -> Predictor:
    """The predictor that ``predictor_config.type`` names. Raises ConfigError for one this version does not have."""
    from trainer_core.learning.predictors.linear import Linear

    if config.type != "Linear":
        raise ConfigError(
            f"[predictor_config] type = {config.type!r}: this version trains with the Linear predictor only; "
            "add predictor_config.type=Linear to go on"
        )
    return Linear(parameters, optimizer, config)
