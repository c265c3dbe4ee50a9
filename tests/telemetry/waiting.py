"""Waiting for a condition with a deadline, never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], within: float = 15.0) -> T:
    """The first true value of ``condition``; fails when there is none in time."""
    ends = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < ends, f"did not happen within {within:g} s"
        time.sleep(0.01)
    return value
