"""The resolved configuration of a run: in force, at its start, by default, in the preset nearest to it. Pure."""

from dataclasses import dataclass, replace
from functools import lru_cache

import msgspec

from app.store import Snapshot
from trainer_core.spec.alerts import LIMIT_SECTIONS
from trainer_core.spec.config import ALL_SETTINGS, Config, Setting
from trainer_core.spec.presets import PRESETS
from trainer_core.spec.records import RunStarted
from trainer_core.spec.render import shown as toml


@dataclass(frozen=True)
class Line:
    """One setting."""

    setting: Setting
    now: str
    began: str
    preset: str
    default: str

    @property
    def name(self) -> str:
        """With its section: names may stand in two."""
        return f"{self.setting.section}.{self.setting.name}"

    @property
    def changed(self) -> bool:
        """Whether it was changed while training ran."""
        return self.now != self.began

    @property
    def differs(self) -> bool:
        """Whether it differs from the default, the preset or its own start."""
        return self.now != self.default or self.now != self.preset or self.changed


@dataclass(frozen=True)
class Resolved:
    """The whole configuration beside a preset."""

    preset: str
    """The preset that it agrees with most."""
    agree: int
    of: int
    """Settings that this preset names."""
    lines: tuple[Line, ...]


@lru_cache(maxsize=64)
def nearest(config: Config) -> tuple[str, int, int]:
    """(preset, settings that agree, settings it names) of the preset that most of its settings agree with."""
    found = []
    for name, tables in PRESETS.items():
        pairs = [(s, k, v) for s, table in tables.items() for k, v in table.items()]
        agree = sum(getattr(getattr(config, s), k) == v for s, k, v in pairs)
        found.append((agree / len(pairs), name, agree, len(pairs)))
    _, name, agree, of = max(found, key=lambda entry: entry[0])
    return name, agree, of


def resolved(snapshot: Snapshot, config: Config | None) -> Resolved | None:
    """None while the run has not said its configuration."""
    started = snapshot.latest(RunStarted)
    if started is None or config is None:
        return None
    try:
        began = msgspec.convert(started.config, Config)
    except msgspec.ValidationError:
        return None
    found = _resolved(config, began)
    if snapshot.own_loop:  # the others are about phases and a trainer, and it has neither
        return replace(found, lines=tuple(line for line in found.lines if line.setting.section in LIMIT_SECTIONS))
    return found


@lru_cache(maxsize=64)
def _resolved(config: Config, began: Config) -> Resolved:
    preset, agree, of = nearest(config)
    return Resolved(preset, agree, of, tuple(_line(setting, config, began, preset) for setting in ALL_SETTINGS))


def _line(setting: Setting, config: Config, began: Config, preset: str) -> Line:
    def of(whole: Config) -> str:
        return toml(getattr(getattr(whole, setting.section), setting.name))

    theirs = PRESETS[preset].get(setting.section, {}).get(setting.name, setting.default)
    return Line(setting, of(config), of(began), toml(theirs), toml(setting.default))
