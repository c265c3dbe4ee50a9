"""Sets an optimizer's learning rates by the curves of ``spec.schedules``."""

from typing import Any

import torch

from trainer_core.spec.config import Config
from trainer_core.spec.schedules import learning_rate_at as learning_rate_at


class Schedule:
    """Sets the learning rate of an optimizer's groups: curve(step) x the group's own ratio x the operator's scale.

    The ratio is to the first group whose rate is not 0: one of rate 0 stays there, whichever place it has.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, config: Config) -> None:
        self._optimizer = optimizer
        self._schedule = config.learning_rate_schedule
        own = [float(group["lr"]) for group in optimizer.param_groups]
        leading = next((rate for rate in own if rate > 0), 0.0)
        self.peak = config.learning_rate.initial if config.learning_rate.initial is not None else leading
        self._ratios = [rate / leading if leading > 0 else 1.0 for rate in own]
        self.scale = 1.0
        """What operators and recoveries have made of the schedule."""

    def planned(self, step: int) -> float:
        """The rate of the first group that has one, without the operator's scale."""
        return learning_rate_at(step, self._schedule, self.peak)

    def apply(self, step: int) -> float:
        """Set every group for ``step``; returns the rate of the first group that has one."""
        rate = self.planned(step) * self.scale
        for group, ratio in zip(self._optimizer.param_groups, self._ratios, strict=True):
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate * ratio)
            else:
                group["lr"] = rate * ratio
        return rate

    def state_dict(self) -> dict[str, Any]:
        return {"scale": self.scale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scale = state["scale"]
