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
        self.given = _given(optimizer)
        """(rate now, rate it was made with) where a torch scheduler has changed the optimizer's; None: none has."""
        self._left: list[tuple[float | torch.Tensor, int, float]] = []
        """Each group's rate as it was set last, a tensor's version, the value; empty: not set since a load."""
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
        self._left = [
            (group["lr"], _version(group["lr"]), rate * ratio)
            for group, ratio in zip(self._optimizer.param_groups, self._ratios, strict=True)
        ]
        return rate

    def changed_by_others(self) -> tuple[float, float] | None:
        """(rate now, rate set last) of the first group whose rate is not what was set last; None: all are."""
        for group, (left, version, value) in zip(self._optimizer.param_groups, self._left, strict=False):
            now = group["lr"]
            if isinstance(now, torch.Tensor):  # its value is read, and waited for, only when somebody wrote to it
                untouched = now is left and now._version == version
                same = untouched or float(now) == float(torch.tensor(value, dtype=now.dtype))
            else:
                same = now == value
            if not same:
                return float(now), value
        return None

    def state_dict(self) -> dict[str, Any]:
        return {"scale": self.scale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scale, self._left = state["scale"], []


def _version(rate: float | torch.Tensor) -> int:
    """How often a tensor was written to; 0 for a number."""
    return rate._version if isinstance(rate, torch.Tensor) else 0


def _given(optimizer: torch.optim.Optimizer) -> tuple[float, float] | None:
    """(rate now, rate it was made with) of the first group that a torch scheduler has changed before; None: none."""
    for group in optimizer.param_groups:
        if "initial_lr" in group and float(group["initial_lr"]) != float(group["lr"]):
            return float(group["lr"]), float(group["initial_lr"])
    return None
