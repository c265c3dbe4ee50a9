"""The settings of a run as they are now: what it started with and every change applied since. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from app.store import Snapshot
from trainer_core.spec.alerts import LIMIT_SECTIONS
from trainer_core.spec.commands import (
    ApplyRemedy,
    Command,
    CommandState,
    SetGradientClip,
    SetPhaseLength,
    SetThreshold,
    SetWeightDecay,
)
from trainer_core.spec.config import ALL_SETTINGS, Config, Setting, with_live_setting
from trainer_core.spec.errors import ConfigError
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import CommandChanged, Row, RunStarted
from trainer_core.spec.remedies import REMEDIES

FIRST = ("confidence_threshold", "divergence_threshold")
"""The two that are moved most; they get their own sliders."""
LENGTHS = {Phase.FULL: "full_steps", Phase.PREDICT: "max_predict_steps", Phase.CORRECT: "correct_steps"}
"""The setting that SetPhaseLength changes."""


@dataclass(frozen=True)
class LiveSetting:
    """One setting that may be changed while training runs, and its present value."""

    setting: Setting
    value: float

    @property
    def title(self) -> str:
        """As people read it, with its unit."""
        name = self.setting.name.replace("_", " ").capitalize()
        unit = self.setting.unit
        return f"{name} ({unit})" if unit and not name.endswith(unit) else name

    @property
    def bounds(self) -> tuple[float, float]:
        """(lowest, highest); every live setting has both."""
        assert self.setting.low is not None and self.setting.high is not None
        return float(self.setting.low), float(self.setting.high)

    @property
    def changed(self) -> bool:
        """Whether it differs from the default."""
        return self.value != self.setting.default


NARROW = 20.0
"""Bounds no further apart than this are one even scale; wider ones rise by factors."""
_PER_DECADE = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)


def notches(live: LiveSetting) -> list[float]:
    """The places of a slider between the bounds of a setting, its value in force and its default among them.

    Even steps where the bounds are close together; else steps that rise by factors, with 0 where it is allowed.
    """
    low, high = live.bounds
    whole = live.setting.type in ("int", "bool")
    if high - low <= NARROW:
        count = round(high - low) if whole else 100
        found = [low + (high - low) * place / count for place in range(count + 1)]
    else:
        first, last = math.floor(math.log10(low if low > 0 else min(1e-3, high))), math.ceil(math.log10(high))
        found = [step * 10.0**decade for decade in range(first, last + 1) for step in _PER_DECADE]
    extra = [low, high, live.value, float(live.setting.default)] if live.setting.default is not None else []
    rounded = {float(f"{value:.6g}") for value in (*found, *extra, live.value) if low <= value <= high}
    return sorted(value for value in rounded if not whole or value == round(value))


def present_config(snapshot: Snapshot) -> Config | None:
    """The configuration in force, or None when the run has not said one that this version can read."""
    found = history(snapshot)
    return found[-1][1] if found else None


def history(snapshot: Snapshot) -> list[tuple[Row, Config]]:
    """The configuration that the run began with, and after each command applied since, oldest first.

    A resumed run says its configuration with all changes in it, so only later commands count. Empty when the run has
    not said one that this version can read.
    """
    started = snapshot.events[RunStarted][-1] if snapshot.events[RunStarted] else None
    if started is None or not isinstance(started.record, RunStarted):
        return []
    try:
        found = [(started, msgspec.convert(started.record.config, Config))]
    except msgspec.ValidationError:
        return []
    for row in _after(snapshot.events[CommandChanged], started.seq):
        if isinstance(row.record, CommandChanged) and row.record.state is CommandState.APPLIED:
            found.append((row, _with(found[-1][1], row.record.command)))
    return found


def _after(rows: Sequence[Row], seq: int) -> list[Row]:
    """The rows after ``seq``, oldest first."""
    return [row for row in rows if row.seq > seq]


def _with(config: Config, command: Command) -> Config:
    """``config`` after a command; as it was when the command changes no live setting."""
    try:
        match command:
            case SetThreshold(name=name, value=value):
                return with_live_setting(config, name, value)
            case SetGradientClip(max_norm=value):
                return with_live_setting(config, "gradient_clip_norm", value)
            case SetWeightDecay(value=value):
                optimizer = msgspec.structs.replace(config.optimizer, weight_decay=value)
                return msgspec.structs.replace(config, optimizer=optimizer)
            case SetPhaseLength(phase=phase, steps=steps) if phase in LENGTHS:
                return with_live_setting(config, LENGTHS[phase], steps)
            case ApplyRemedy(remedy=remedy) if remedy in REMEDIES:
                for part in REMEDIES[remedy](config):
                    config = _with(config, part)
                return config
            case _:
                return config
    except ConfigError:
        return config


def live_settings(snapshot: Snapshot) -> list[LiveSetting]:
    """Every live setting that the run has a use for, with its value; empty while the configuration is unknown."""
    config = present_config(snapshot)
    if config is None:
        return []
    return [
        LiveSetting(setting, float(getattr(getattr(config, setting.section), setting.name)))
        for setting in ALL_SETTINGS
        if setting.live and (setting.section in LIMIT_SECTIONS or not snapshot.own_loop)
    ]
