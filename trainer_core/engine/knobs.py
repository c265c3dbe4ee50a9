"""Knobs of the training script: functions of the user's own behind names with bounds. Says nothing, asks nobody.

A knob that an operator has set keeps its value: over a rollback (nobody takes it back) and over a restart (the value is
in the checkpoint, and is set again when the restarted script declares the knob).
"""

import contextlib
import math
from collections.abc import Callable
from typing import Any

import msgspec

from trainer_core.engine.answers import BeforeAfter, Failed, Refused
from trainer_core.spec.errors import ConfigError
from trainer_core.spec.knobs import KnobDeclared, checked_knob


class Knob(msgspec.Struct, frozen=True):
    """One knob."""

    name: str
    get: Callable[[], float]
    set: Callable[[float], object]
    low: float
    high: float
    unit: str = ""
    meaning: str = ""


class Knobs:
    """The knobs of one run, by name."""

    def __init__(self) -> None:
        self._knobs: dict[str, Knob] = {}
        self._set: dict[str, float] = {}
        """What operators have set, also of knobs that are not declared yet."""

    def declare(self, knob: Knob, step: int) -> KnobDeclared:
        """Add a knob, or replace the one of its name. Raises ConfigError when it makes no sense."""
        if not isinstance(knob.name, str) or not 0 < len(knob.name) <= 200 or not knob.name.isprintable():
            raise ConfigError(f"knob {knob.name!r}: a name is 1 to 200 printable characters")
        if knob.name != knob.name.strip():
            raise ConfigError(f"knob {knob.name!r}: a name has no space at its ends")
        knob = _plain(knob)
        if not (math.isfinite(knob.low) and math.isfinite(knob.high) and knob.low < knob.high):
            raise ConfigError(f"knob {knob.name}: low = {knob.low:g}, high = {knob.high:g}: low must be below high")
        kept = self._set.get(knob.name)
        if kept is not None and knob.low <= kept <= knob.high:
            knob.set(kept)
        value = _read(knob)
        if not knob.low <= value <= knob.high:
            raise ConfigError(
                f"knob {knob.name}: its value {value:g} is outside its bounds {knob.low:g} to {knob.high:g}"
            )
        self._knobs[knob.name] = knob
        return KnobDeclared(step, knob.name, knob.low, knob.high, value, knob.unit, knob.meaning)

    def set(self, name: str, value: float) -> tuple[float, float]:
        """(before, after). Raises ConfigError for an unknown knob or a value out of bounds, with nothing changed; what
        the knob's own functions raise, after setting it back.
        """
        checked_knob(self._knobs, name, value)
        knob = self._knobs[name]
        before = float(knob.get())
        try:
            knob.set(value)
            after = float(knob.get())
        except BaseException:
            with contextlib.suppress(Exception):  # it may not be settable at all: what it is now is asked of it
                knob.set(before)
            raise
        self._set[name] = value
        return before, after

    def now(self, name: str) -> str:
        """What a knob says it is, in words."""
        try:
            return f"it is {float(self._knobs[name].get()):g}"
        except Exception as error:  # the user's own function
            return f"what it is cannot be read: {type(error).__name__}: {error}"

    def state_dict(self) -> dict[str, Any]:
        return dict(self._set)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set again what had been set; a knob that is not declared yet gets its value when it is."""
        self._set = {name: float(value) for name, value in state.items()}
        for name, value in self._set.items():
            if name in self._knobs:
                self._knobs[name].set(value)


def set_knob(knobs: Knobs, name: str, value: float) -> BeforeAfter:
    """Set a knob of the run's own. Raises Refused for an unknown one or a bound, Failed when its own function does."""
    try:
        before, after = knobs.set(name, value)
    except ConfigError as error:
        raise Refused(str(error)) from None
    except Exception as error:  # the user's own function: whatever it raises must not end the run
        why = f"the knob {name} could not be set: {type(error).__name__}: {error}"
        raise Failed(f"{why}; {knobs.now(name)}") from error
    return f"{before:g}", f"{after:g}"


def _plain(knob: Knob) -> Knob:
    """With bounds of type float and words of type str. Raises ConfigError."""
    try:
        low, high = float(knob.low), float(knob.high)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"knob {knob.name}: low = {knob.low!r}, high = {knob.high!r}: must be numbers") from None
    for what, function in (("get", knob.get), ("set", knob.set)):
        if not callable(function):
            raise ConfigError(f"knob {knob.name}: {what} = {function!r}: must be a function")
    return Knob(knob.name, knob.get, knob.set, low, high, str(knob.unit), str(knob.meaning))


def _read(knob: Knob) -> float:
    """The value of a knob that is declared. Raises ConfigError for what is no number, and what its function raises."""
    value = knob.get()
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"knob {knob.name}: get gave {value!r}: must be a number") from None
