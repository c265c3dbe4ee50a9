"""The settings of a run as they are now: what it started with and every change applied since. Pure."""

from dataclasses import dataclass

import msgspec

from app.store import Snapshot
from trainer_core.spec.commands import CommandState, SetGradientClip, SetThreshold
from trainer_core.spec.config import ALL_SETTINGS, Config, Setting, with_live_setting
from trainer_core.spec.errors import ConfigError
from trainer_core.spec.records import CommandChanged, RunStarted

FIRST = ("confidence_threshold", "divergence_threshold")
"""The two that are moved most; they get their own sliders."""


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
    """The configuration in force, or None when the run has not said one that this version can read."""
    started = snapshot.latest(RunStarted)
    if started is None:
        return None
    try:
        config = msgspec.convert(started.config, Config)
        for change in snapshot.of(CommandChanged):
            if change.state is CommandState.APPLIED:
                config = _applied(config, change)
    except (msgspec.ValidationError, ConfigError):
        return None
    return config


def _applied(config: Config, change: CommandChanged) -> Config:
    match change.command:
        case SetThreshold(name=name, value=value):
            return with_live_setting(config, name, value)
        case SetGradientClip(max_norm=value):
            return with_live_setting(config, "gradient_clip_norm", value)
        case _:
            return config


def live_settings(snapshot: Snapshot) -> list[LiveSetting]:
    """Every live setting with its value; empty while the configuration is unknown."""
    config = present_config(snapshot)
    if config is None:
        return []
    return [
        LiveSetting(setting, float(getattr(getattr(config, setting.section), setting.name)))
        for setting in ALL_SETTINGS
        if setting.live
    ]
