"""TOML, presets and overrides -> a checked Config, with notes on keys that were put where they belong. Runs nothing."""

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from trainer_core.spec.config import ALL_SETTINGS, SECTIONS, SETTINGS, Config, Setting
from trainer_core.spec.errors import ConfigError
from trainer_core.spec.presets import PRESETS

Tables = dict[str, dict[str, Any]]
ConfigLike = Config | Mapping[str, Any] | str | Path | None
"""section -> key -> value, every key in its own section."""

ALIASES: dict[tuple[str, str], tuple[str, str]] = {
    ("learning_rate", "schedule"): ("learning_rate_schedule", "type"),
    ("learning_rate", "warmup_steps"): ("learning_rate_schedule", "warmup_steps"),
    ("learning_rate", "stable_steps"): ("learning_rate_schedule", "stable_steps"),
    ("optimizer", "learning_rate"): ("learning_rate", "initial"),
    ("", "learning_rate"): ("learning_rate", "initial"),
    ("", "initial_lr"): ("learning_rate", "initial"),
    ("", "predictor_type"): ("predictor_config", "type"),
    ("", "predictor_ensemble"): ("predictor_config", "ensemble_size"),
}
"""Other spellings in the document: (section, key) -> where it belongs; section "" is a key under any header or none."""

_AMBIGUOUS = {s.name for s in ALL_SETTINGS if sum(t.name == s.name for t in ALL_SETTINGS) > 1} - {"warmup_steps"}


class Loaded(msgspec.Struct, frozen=True):
    """A configuration, and what a reader should know about how it was read."""

    config: Config
    notes: tuple[str, ...] = ()


def load(
    file: Path | str | None = None,
    preset: str | None = None,
    overrides: Mapping[str, str] | None = None,
    defaults: Tables | None = None,
) -> Loaded:
    """Defaults of the task, then the preset, then the file, then ``key=value`` overrides; later ones win.

    Raises ConfigError naming the key, the value and what is allowed.
    """
    document = read_toml(Path(file)) if file is not None else {}
    return resolve(document, preset=preset, overrides=overrides, defaults=defaults)


def read_toml(file: Path) -> dict[str, Any]:
    """The parsed file. Raises ConfigError with the path and the parser's line."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))  # editors on Windows begin a file with a mark
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # also whole numbers of thousands of digits, and deep nesting
        raise ConfigError(f"{file}: not valid TOML: {error}") from None


def resolve(
    document: Mapping[str, Any],
    preset: str | None = None,
    overrides: Mapping[str, str] | None = None,
    defaults: Tables | None = None,
) -> Loaded:
    """As ``load``, from an already parsed document."""
    written = dict(document)
    named = written.pop("preset", None)
    preset = preset if preset is not None else named
    notes: list[str] = []
    file_tables = placed(written, notes)
    override_tables = placed({k: _parsed(v) for k, v in (overrides or {}).items()}, [])
    merged: Tables = {}
    for tables in (defaults or {}, preset_tables(preset), file_tables, override_tables):
        for section, values in tables.items():
            merged.setdefault(section, {}).update(values)
    return Loaded(config_from(merged, preset), tuple(notes))


def preset_tables(preset: object) -> Tables:
    """The tables of a preset; none for None. Raises ConfigError for an unknown name."""
    if preset is None:
        return {}
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ConfigError(f"preset = {preset!r}: must be one of {', '.join(PRESETS)}")
    return PRESETS[preset]


def placed(document: Mapping[str, Any], notes: list[str]) -> Tables:
    """Put every key into its own section, check its type and bounds, and note what was moved."""
    tables: Tables = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            if key not in SECTIONS:
                raise ConfigError(f"[{key}]: no such section{_like(key, SECTIONS)}")
            for inner, inner_value in value.items():
                _place(tables, key, inner, inner_value, notes)
        elif "." in key:
            section, _, inner = key.rpartition(".")
            if section not in SECTIONS:
                raise ConfigError(f"{key}: no such section: {section}{_like(section, SECTIONS)}")
            _place(tables, section, inner, value, notes)
        else:
            _place(tables, "", key, value, notes)
    return tables


def _place(tables: Tables, section: str, key: str, value: Any, notes: list[str]) -> None:
    setting = find(section, key)
    shown = f"[{section}] {key}" if section else key
    value = checked(setting, value, shown)
    home = tables.setdefault(setting.section, {})
    if setting.name in home and home[setting.name] != value:
        raise ConfigError(
            f"{shown} = {value!r}: {setting.section}.{setting.name} is also given as {home[setting.name]!r}"
        )
    home[setting.name] = value
    if section and setting.section != section:
        notes.append(f"{shown} was read as [{setting.section}] {setting.name}")


def find(section: str, key: str) -> Setting:
    """The setting that ``key`` under ``[section]`` means ("" is no header). Raises ConfigError."""
    own = SETTINGS.get(f"{section}.{key}")
    if own is not None:
        return own
    alias = ALIASES.get((section, key)) or ALIASES.get(("", key))
    if alias is not None:
        return SETTINGS[".".join(alias)]
    shown = f"[{section}] {key}" if section else key
    if key in _AMBIGUOUS:
        homes = ", ".join(f"{s.section}.{key}" for s in ALL_SETTINGS if s.name == key)
        raise ConfigError(f"{shown}: say which one is meant: {homes}")
    if key not in SETTINGS:
        raise ConfigError(f"{shown}: no such setting{_like(key, [s.name for s in ALL_SETTINGS])}")
    return SETTINGS[key]


def checked(setting: Setting, value: Any, shown: str) -> Any:
    """``value`` as the setting's type. Raises ConfigError naming the key, the value and the allowed range."""
    if value is None and setting.optional:
        return None
    if value is None and "none" in setting.choices:
        value = "none"  # the word itself
    accepts: Any = {"int": int, "float": (int, float), "bool": bool, "str": str}[setting.type]
    right_type = isinstance(value, accepts) and (setting.type == "bool" or not isinstance(value, bool))
    if setting.type == "int" and isinstance(value, float) and value.is_integer():
        value, right_type = int(value), True
    in_bounds = right_type and (setting.low is None or setting.high is None or setting.low <= value <= setting.high)
    if not in_bounds or (setting.choices and value not in setting.choices):
        raise ConfigError(f"{shown} = {value!r}: must be {setting.bounds}")
    return float(value) if setting.type == "float" else value


def config_from(tables: Tables, preset: str | None) -> Config:
    """Build the Config, which checks the rules that join several settings. Raises ConfigError."""
    document: dict[str, Any] = {name: dict(values) for name, values in tables.items()}
    if preset is not None:
        document["preset"] = preset
    try:
        return msgspec.convert(document, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(str(error)) from None


def as_config(config: ConfigLike) -> Config:
    """A Config, a mapping in the sections of the document, the path of a TOML file, or None: the defaults."""
    match config:
        case None:
            return Config()
        case Config():
            return config
        case str() | Path():
            return load(Path(config)).config
        case Mapping():
            return resolve(config).config
        case _:
            raise ConfigError(
                f"config = {config!r:.100}: must be a Config, a mapping, the path of a TOML file, or None"
            )


def to_toml(config: Config) -> str:
    """The resolved configuration as TOML that ``load`` reads back to the same Config."""
    document = {
        name: {k: v for k, v in table.items() if v is not None} if isinstance(table, dict) else table
        for name, table in msgspec.to_builtins(config).items()
        if table is not None
    }
    return msgspec.toml.encode(document).decode()


def tables_of(config: Config) -> Tables:
    """Section -> key -> value of the whole configuration, as ``RunStarted.config`` holds it."""
    return {k: v for k, v in msgspec.to_builtins(config).items() if isinstance(v, dict)}


def _parsed(text: str) -> Any:
    """An override's text as a TOML value; a bare word is a string, ``none`` is None."""
    if text.strip().lower() == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _like(key: str, known: Any) -> str:
    close = difflib.get_close_matches(key, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
