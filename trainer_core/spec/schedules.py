"""The learning rate as a function of the nominal step. Pure: a predicted stretch may skip steps, so no state is kept.

torch's schedulers advance one step at a time; hybrid training jumps, so the same curves are written as functions here.
"""

import math

from trainer_core.spec.config import LearningRateSchedule


def learning_rate_at(step: int, schedule: LearningRateSchedule, peak: float) -> float:
    """Learning rate of ``step`` when the rate after warmup is ``peak`` (methodology, "Learning Rate Scheduling")."""
    match schedule.type:
        case "Constant":
            return peak
        case "WarmupOnly":
            target = schedule.warmup_target if schedule.warmup_target is not None else peak
            return _warmup(step, schedule, target) if step < schedule.warmup_steps else target
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


def peak_of(schedule: LearningRateSchedule, step: int, rate: float) -> float | None:
    """The peak with which ``learning_rate_at(step, schedule, peak)`` is ``rate``; None where the rate cannot tell."""
    s = schedule
    match s.type:
        case "Constant":
            return rate
        case "Cyclic":
            return None
        case _ if step < s.warmup_steps:
            return s.warmup_init + (rate - s.warmup_init) * s.warmup_steps / step if step > 0 else None
        case "WarmupStableDecay" if step >= s.warmup_steps + s.stable_steps:
            return None
        case _:
            return rate


def corners(schedule: LearningRateSchedule, most: int = 400) -> list[int]:
    """Steps at which the curve bends: ends of warmup, stable phase and decay, or lows and highs of the cycles."""
    s = schedule
    match s.type:
        case "Constant":
            return [0]
        case "WarmupOnly":
            return [0, s.warmup_steps]
        case "WarmupStableDecay":
            stable = s.warmup_steps + s.stable_steps
            return [0, s.warmup_steps, stable, stable + s.decay_steps]
        case "Cyclic":
            return [round(i * s.cycle_length / 2) for i in range(most)]
