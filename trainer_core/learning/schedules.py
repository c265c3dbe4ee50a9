"""The learning rate as a function of the nominal step. Pure: a predicted stretch may skip steps, so no state is kept.

torch's schedulers advance one step at a time; hybrid training jumps, so the same curves are written as functions here.
"""

import math
from typing import Any

import torch

from trainer_core.spec.config import Config, LearningRateSchedule


def learning_rate_at(step: int, schedule: LearningRateSchedule, peak: float) -> float:
    """Learning rate of ``step`` when the rate after warmup is ``peak`` (methodology, "Learning Rate Scheduling")."""
    match schedule.type:
        case "Constant":
            return peak
        case "WarmupOnly":
            return _warmup(step, schedule, peak) if step < schedule.warmup_steps else peak
        case "WarmupStableDecay":
            return _warmup_stable_decay(step, schedule, peak)
        case "Cyclic":
            return _cyclic(step, schedule)


def _warmup(step: int, s: LearningRateSchedule, peak: float) -> float:
    return s.warmup_init + (peak - s.warmup_init) * step / s.warmup_steps


def _warmup_stable_decay(step: int, s: LearningRateSchedule, peak: float) -> float:
    target = s.warmup_target if s.warmup_target is not None else peak
    stable = s.stable_rate if s.stable_rate is not None else target
    if step < s.warmup_steps:
        return _warmup(step, s, target)
    if step < s.warmup_steps + s.stable_steps:
        return stable
    progress = min(1.0, (step - s.warmup_steps - s.stable_steps) / s.decay_steps) if s.decay_steps else 1.0
    low = min(s.decay_min, stable)
    return low + (stable - low) * 0.5 * (1.0 + math.cos(math.pi * progress))


def _cyclic(step: int, s: LearningRateSchedule) -> float:
    """Smith 2017, "Cyclical Learning Rates": a triangle of ``cycle_length`` steps between base_lr and max_lr."""
    half = s.cycle_length / 2
    cycle = math.floor(1 + step / s.cycle_length)
    height = max(0.0, 1.0 - abs(step / half - 2 * cycle + 1))
    scale = {"triangular": 1.0, "triangular2": 0.5 ** (cycle - 1), "exp_range": s.gamma**step}[s.mode]
    return s.base_lr + (s.max_lr - s.base_lr) * height * scale


class Schedule:
    """Sets the learning rate of an optimizer's groups: curve(step) x the group's own ratio x the operator's scale."""

    def __init__(self, optimizer: torch.optim.Optimizer, config: Config) -> None:
        self._optimizer = optimizer
        self._schedule = config.learning_rate_schedule
        own = [float(group["lr"]) for group in optimizer.param_groups]
        self.peak = config.learning_rate.initial if config.learning_rate.initial is not None else own[0]
        self._ratios = [rate / own[0] if own[0] > 0 else 1.0 for rate in own]
        self.scale = 1.0
        """What operators and recoveries have made of the schedule."""

    def planned(self, step: int) -> float:
        """The first group's rate without the operator's scale."""
        return learning_rate_at(step, self._schedule, self.peak)

    def apply(self, step: int) -> float:
        """Set every group for ``step``; returns the first group's rate."""
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
