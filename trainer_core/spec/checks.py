"""What is wrong with a command, in one sentence that names the field, its value and what is allowed. Knows no run.

``problem_with`` asks about a command that could be read, ``why_not`` about a request that could not.
"""

import math
import types
from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from trainer_core.spec.alerts import NOT_FINITE, RULES, SYSTEM_RULES
from trainer_core.spec.commands import (
    ApplyRemedy,
    Command,
    CommandRequest,
    SetGradientClip,
    SetPhaseLength,
    SetThreshold,
    SetWeightDecay,
    SilenceAlert,
    kind_of,
)
from trainer_core.spec.config import SETTINGS, exact, live_setting
from trainer_core.spec.errors import ConfigError
from trainer_core.spec.remedies import REMEDIES
from trainer_core.spec.slots import LENGTH_OF

KINDS: dict[str, type[Command]] = {str(kind.__struct_config__.tag): kind for kind in get_args(Command)}
"""Every command by its kind."""
_RULES = tuple(rule.name for rule in (*RULES, *SYSTEM_RULES, NOT_FINITE))


def problem_with(command: Command) -> str | None:
    """What is wrong with a command's values; None when nothing is, as far as can be told without the run."""
    for field in command.__struct_fields__:
        value = getattr(command, field)
        if (wrong := _wrong(type(command), field, value)) is not None:
            return f"{kind_of(command)}: {wrong}"
    try:
        match command:
            case SetThreshold(name=name, value=value):
                live_setting(name, value)
            case SetPhaseLength(phase=phase, steps=steps):
                live_setting(LENGTH_OF[phase], steps)
            case SetGradientClip(max_norm=value):
                live_setting("gradient_clip_norm", value)
            case SetWeightDecay(value=value):
                setting = SETTINGS["weight_decay"]
                if setting.low is not None and setting.high is not None and not setting.low <= value <= setting.high:
                    raise ConfigError(f"weight_decay = {exact(value)}: must be {setting.bounds}")
            case ApplyRemedy(remedy=remedy) if remedy not in REMEDIES:
                raise ConfigError(f"there is no remedy {remedy}; there are: {', '.join(REMEDIES)}")
            case SilenceAlert(rule=rule) if rule not in _RULES:
                raise ConfigError(f"there is no alert rule called {rule}; there are: {', '.join(_RULES)}")
            case _:
                pass
    except ConfigError as error:
        return f"{kind_of(command)}: {error}"
    return None


def why_not(request: object) -> str | None:
    """What is wrong with a request as it came, a map of plain values; None when that cannot be told."""
    if not isinstance(request, Mapping):
        return None
    command = request.get("command")
    if not isinstance(command, Mapping):
        return "command: must be a map with its kind in it" if "command" in request else "command is missing"
    kind = KINDS.get(str(command.get("kind")))
    if kind is None:
        return f"there is no command {_shown(command.get('kind'))}; there are: {', '.join(KINDS)}"
    wrong = _first_wrong(kind, {name: value for name, value in command.items() if name != "kind"})
    if wrong is not None:
        return f"{command['kind']}: {wrong}"
    return _first_wrong(CommandRequest, {name: value for name, value in request.items() if name != "command"})


def _first_wrong(kind: type[msgspec.Struct], given: Mapping[Any, Any]) -> str | None:
    fields = {field.name: field for field in msgspec.structs.fields(kind) if field.name != "command"}
    for name in given:
        if name not in fields:
            return f"there is no field {_shown(name)}; there are: {', '.join(fields) or 'none'}"
    for name, field in fields.items():
        if name in given:
            if (wrong := _wrong(kind, name, given[name])) is not None:
                return wrong
        elif field.required:
            return f"{name} is missing: {_allowed(_hint(kind, name))}"
    return None


def _wrong(kind: type, name: str, value: Any) -> str | None:
    hint = _hint(kind, name)
    finite = not isinstance(value, float) or math.isfinite(value)
    try:
        msgspec.convert(value, hint)
    except (msgspec.ValidationError, OverflowError):
        finite = False
    return None if finite else f"{name} = {_shown(value)}: must be {_allowed(hint)}"


def _hint(kind: type, name: str) -> Any:
    return get_type_hints(kind, include_extras=True)[name]


def _shown(value: Any) -> str:
    text = exact(value) if isinstance(value, float) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _allowed(hint: Any) -> str:
    """The allowed values of a field, in words."""
    if get_origin(hint) in (types.UnionType, Union):
        return " or ".join("none" if part is type(None) else _allowed(part) for part in get_args(hint))
    base, metas = (get_args(hint)[0], get_args(hint)[1:]) if get_origin(hint) is Annotated else (hint, ())
    meta = next((m for m in metas if isinstance(m, msgspec.Meta)), msgspec.Meta())
    if isinstance(base, type) and issubclass(base, Enum):
        return f"one of {', '.join(str(member.value) for member in base)}"
    if base is bool:
        return "true or false"
    if base is str:
        return f"a text of {meta.min_length or 0} to {meta.max_length} characters"
    bounds = [
        f"{words} {exact(bound)}"
        for words, bound in (
            ("above", meta.gt),
            ("at least", meta.ge),
            ("below", meta.lt),
            ("at most", meta.le),
        )
        if bound is not None
    ]
    return " ".join(["a whole number" if base is int else "a finite number", " and ".join(bounds)]).strip()
