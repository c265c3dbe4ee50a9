"""The weight decay of an optimizer whose parameter groups may have several. Knows no optimizer and no tensor."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from trainer_core.spec.config import SETTINGS, Config

Groups = Sequence[Mapping[str, Any]]


def leading_decay(groups: Groups) -> float | None:
    """Of the first group whose decay is not 0: biases and norms commonly have none. None: no group has such a thing."""
    decays = [float(group["weight_decay"]) for group in groups if group.get("weight_decay") is not None]
    return next((decay for decay in decays if decay != 0), 0.0) if decays else None


def with_decay_of(config: Config, groups: Groups) -> Config:
    """``config`` with the weight decay that the optimizer has: what remedies start from, and what a reader is told."""
    decay, high = leading_decay(groups), SETTINGS["weight_decay"].high
    return config if decay is None or high is None or not 0 <= decay <= high else with_decay(config, decay)


def with_decay(config: Config, value: float) -> Config:
    """``config`` with another weight decay."""
    return msgspec.structs.replace(config, optimizer=msgspec.structs.replace(config.optimizer, weight_decay=value))
