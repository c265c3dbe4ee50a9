"""The whole configuration, and every setting as forms, docs, messages and commands see it. Knows no file format.

The numbers themselves are in ``spec.sections`` and ``spec.health``.
"""

import math
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from trainer_core.spec.errors import ConfigError
from trainer_core.spec.health import HealthConfig
from trainer_core.spec.sections import (
    CheckpointConfig,
    DatasetConfig,
    DivergenceConfig,
    HybridTrainerConfig,
    LearningRateConfig,
    LearningRateSchedule,
    ModelConfig,
    OptimizerConfig,
    PredictorConfig,
    Section,
    TrainingConfig,
)

__all__ = [
    "ALL_SETTINGS",
    "SECTIONS",
    "SETTINGS",
    "CheckpointConfig",
    "Config",
    "DatasetConfig",
    "DivergenceConfig",
    "HealthConfig",
    "HybridTrainerConfig",
    "LearningRateConfig",
    "LearningRateSchedule",
    "ModelConfig",
    "OptimizerConfig",
    "PredictorConfig",
    "Section",
    "Setting",
    "TrainingConfig",
    "live_setting",
    "live_values",
    "with_live_setting",
    "with_live_settings",
]


class Config(Section, frozen=True):
    """The whole configuration; made by ``spec.loading``."""

    preset: str | None = None
    hybrid_trainer_config: HybridTrainerConfig = HybridTrainerConfig()
    predictor_config: PredictorConfig = PredictorConfig()
    learning_rate: LearningRateConfig = LearningRateConfig()
    learning_rate_schedule: LearningRateSchedule = LearningRateSchedule()
    optimizer: OptimizerConfig = OptimizerConfig()
    divergence_config: DivergenceConfig = DivergenceConfig()
    health: HealthConfig = HealthConfig()
    training: TrainingConfig = TrainingConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    dataset: DatasetConfig = DatasetConfig()
    model: ModelConfig = ModelConfig()


class Setting(msgspec.Struct, frozen=True):
    """One setting as forms, docs and error messages see it."""

    name: str
    section: str
    type: str
    """int, float, bool or str."""
    default: bool | int | float | str | None
    low: float | None
    high: float | None
    unit: str
    meaning: str
    live: bool
    """Whether ``set-threshold`` may change it while training runs."""
    choices: tuple[str, ...]
    optional: bool

    @property
    def bounds(self) -> str:
        """The allowed values in words, for messages."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.type == "bool":
            return "true or false"
        if self.low is None or self.high is None:
            return "a text"
        kind = "a whole number" if self.type == "int" else "a number"
        return f"{kind} from {exact(self.low)} to {exact(self.high)}"


def exact(value: float) -> str:
    """A number in words: short where that is the number itself, else with every digit that tells it from another."""
    short = f"{value:g}"
    if float(short) == value or not math.isfinite(value):
        return short
    return f"{value:.0f}" if float(value).is_integer() else repr(value)


SECTIONS: dict[str, type[Section]] = {
    name: hint for name, hint in get_type_hints(Config).items() if isinstance(hint, type) and issubclass(hint, Section)
}


def _setting(section: str, name: str, hint: Any, default: Any) -> Setting:
    optional = get_origin(hint) is not Annotated
    inner = get_args(hint)[0] if optional else hint
    base, meta = inner.__origin__, inner.__metadata__[0]
    choices = get_args(base) if get_origin(base) is Literal else ()
    kind = "str" if choices else base.__name__
    extra = meta.extra_json_schema
    switch = kind == "bool" and extra["live"]
    return Setting(
        name,
        section,
        kind,
        default,
        0 if switch else meta.ge,
        1 if switch else meta.le,
        extra["unit"],
        meta.description,
        extra["live"],
        choices,
        optional,
    )


def _all_settings() -> list[Setting]:
    return [
        _setting(section, field.name, hints[field.name], field.default)
        for section, kind in SECTIONS.items()
        for hints in [get_type_hints(kind, include_extras=True)]
        for field in msgspec.structs.fields(kind)
    ]


ALL_SETTINGS: tuple[Setting, ...] = tuple(_all_settings())
"""Every setting, in the order of the sections."""

SETTINGS: dict[str, Setting] = {}
"""By name; the first section that has the name wins (``warmup_steps`` is the trainer's). Also ``section.name``."""
for _s in ALL_SETTINGS:
    SETTINGS.setdefault(_s.name, _s)
    SETTINGS[f"{_s.section}.{_s.name}"] = _s


def live_setting(name: str, value: float) -> Setting:
    """The live setting called ``name``, after checking ``value`` against its bounds. Raises ConfigError."""
    setting = SETTINGS.get(name)
    if setting is None:
        known = ", ".join(sorted(s.name for s in ALL_SETTINGS if s.live))
        raise ConfigError(f"{name}: no such setting; these can be changed while training runs: {known}")
    if not setting.live:
        raise ConfigError(f"{name}: cannot be changed while training runs; it is read at the start")
    whole = setting.type == "float" or float(value).is_integer()
    if setting.low is None or setting.high is None or not whole or not setting.low <= value <= setting.high:
        raise ConfigError(f"{name} = {exact(value)}: must be {setting.bounds}")
    return setting


def _typed(setting: Setting, value: float) -> float:
    """``value`` as the type of the setting."""
    if setting.type == "bool":
        return bool(value)
    return int(value) if setting.type == "int" else float(value)


def live_values(config: Config) -> dict[str, float]:
    """Name -> value of every live setting."""
    return {s.name: getattr(getattr(config, s.section), s.name) for s in ALL_SETTINGS if s.live}


def with_live_settings(config: Config, values: dict[str, float]) -> Config:
    """``config`` with several live settings changed at once: rules that join them see the end, not the way there."""
    sections: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        setting = live_setting(name, value)
        sections.setdefault(setting.section, {})[setting.name] = _typed(setting, value)
    try:
        changed = {s: msgspec.structs.replace(getattr(config, s), **named) for s, named in sections.items()}
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return msgspec.structs.replace(config, **changed)


def with_live_setting(config: Config, name: str, value: float) -> Config:
    """``config`` with one live setting changed. Raises ConfigError and changes nothing when a rule forbids it."""
    setting = live_setting(name, value)
    section = getattr(config, setting.section)
    number_ = _typed(setting, value)
    try:
        changed = msgspec.structs.replace(section, **{setting.name: number_})
    except ValueError as error:
        raise ConfigError(f"{name} = {exact(value)}: {error}") from None
    return msgspec.structs.replace(config, **{setting.section: changed})
