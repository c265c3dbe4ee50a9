"""The settings of a run as they are now: what it started with and every change applied since. Pure."""

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
    def changed(self) -> bool:
        """Whether it differs from the default."""
        return self.value != self.setting.default


def present_config(snapshot: Snapshot) -> Config | None:
    """The configuration in force, or None when the run has not said one that this version can read.

    A resumed run says its configuration with all changes in it, so only later commands count.
    """
    starts = snapshot.events[RunStarted]
    started = snapshot.latest(RunStarted)
    if started is None:
        return None
    try:
        config = msgspec.convert(started.config, Config)
    except msgspec.ValidationError:
        return None
    for row in _after(snapshot.events[CommandChanged], starts[-1].seq):
        if isinstance(row.record, CommandChanged) and row.record.state is CommandState.APPLIED:
            config = _with(config, row.record.command)
    return config


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
