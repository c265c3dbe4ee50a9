"""Knobs of the training script: functions of the user's own behind names with bounds. Says nothing, asks nobody.

A knob that an operator has set keeps its value: over a rollback (nobody takes it back) and over a restart (the value is
in the checkpoint, and is set again when the restarted script declares the knob).
"""

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
        if not knob.name or len(knob.name) > 200 or knob.name != knob.name.strip():
            raise ConfigError(f"knob {knob.name!r}: a name is 1 to 200 characters without a space at its ends")
        if not (math.isfinite(knob.low) and math.isfinite(knob.high) and knob.low < knob.high):
            raise ConfigError(f"knob {knob.name}: low = {knob.low:g}, high = {knob.high:g}: low must be below high")
        kept = self._set.get(knob.name)
        if kept is not None and knob.low <= kept <= knob.high:
            knob.set(kept)
        value = float(knob.get())
        if not knob.low <= value <= knob.high:
            raise ConfigError(
                f"knob {knob.name}: its value {value:g} is outside its bounds {knob.low:g} to {knob.high:g}"
            )
        self._knobs[knob.name] = knob
        return KnobDeclared(step, knob.name, knob.low, knob.high, value, knob.unit, knob.meaning)

    def set(self, name: str, value: float) -> tuple[float, float]:
        """(before, after). Raises ConfigError for an unknown knob or a value out of bounds, with nothing changed."""
        checked_knob(self._knobs, name, value)
        knob = self._knobs[name]
        before = float(knob.get())
        knob.set(value)
        self._set[name] = value
        return before, float(knob.get())

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
        raise Failed(f"the knob {name} could not be set: {type(error).__name__}: {error}") from error
    return f"{before:g}", f"{after:g}"
