"""How much one key may ask in a while: token buckets. Knows no socket and no clock but the one passed in."""

from collections.abc import Callable


class Pace:
    """``rate`` a second per name, after the first ``burst``."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self.rate, self._burst, self._clock = rate, burst, clock
        self._tokens: dict[str, tuple[float, float]] = {}

    def allows(self, name: str) -> bool:
        """Whether one more is within bounds; counts it when it is."""
        now = self._clock()
        tokens, then = self._tokens.get(name, (self._burst, now))
        tokens = min(self._burst, tokens + max(0.0, now - then) * self.rate)
        within = tokens >= 1.0
        self._tokens[name] = (tokens - 1.0 if within else tokens, now)
        return within
