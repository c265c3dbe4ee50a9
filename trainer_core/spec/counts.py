"""Numbers of steps that a program passes in, checked at the door. Knows no run."""

import operator

from trainer_core.spec.commands import MOST_STEPS
from trainer_core.spec.errors import ConfigError


def steps_or_none(name: str, value: object, least: int = 1) -> int | None:
    """``value`` if it is None or a whole number from ``least`` to 2**53, of any integer type but bool.

    Raises ConfigError with the argument's name, the value and what is allowed.
    """
    if value is None:
        return None
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]  # what is no integer says so here
        if least <= number <= MOST_STEPS:
            return number
    except TypeError:
        pass
    raise ConfigError(f"{name} = {value!r}: must be a whole number from {least} to 2**53, or None")
