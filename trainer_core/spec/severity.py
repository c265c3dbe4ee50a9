"""How bad a value is: the one ordering of severities and the ladders that assign them. Knows no signal by name."""

import math
from enum import IntEnum

import msgspec


class Severity(IntEnum):
    """Ordered so that ``max`` of several severities is the one to show."""

    HEALTHY = 0
    CAUTION = 1
    WARNING = 2
    CRITICAL = 3


class Ladder(msgspec.Struct, frozen=True):
    """Limits of one signal, in rising severity (methodology, "Critical Thresholds").

    ``above`` rungs are exceeded strictly upwards, ``below`` rungs strictly downwards; a rung of ``None`` does not
    exist. NaN is CRITICAL: a value that cannot be compared cannot be called healthy.
    """

    caution_above: float | None = None
    warning_above: float | None = None
    critical_above: float | None = None
    caution_below: float | None = None
    warning_below: float | None = None
    critical_below: float | None = None

    def classify(self, value: float) -> Severity:
        """The worst rung that ``value`` has passed."""
        if math.isnan(value):
            return Severity.CRITICAL
        for severity, above, below in self.rungs():
            if (above is not None and value > above) or (below is not None and value < below):
                return severity
        return Severity.HEALTHY

    def rungs(self) -> tuple[tuple[Severity, float | None, float | None], ...]:
        """(severity, upper limit, lower limit), worst first: what charts draw as bands."""
        return (
            (Severity.CRITICAL, self.critical_above, self.critical_below),
            (Severity.WARNING, self.warning_above, self.warning_below),
            (Severity.CAUTION, self.caution_above, self.caution_below),
        )

    def side(self, above: bool) -> "Ladder":
        """The upper limits alone, or the lower ones alone."""
        if above:
            return Ladder(self.caution_above, self.warning_above, self.critical_above)
        return Ladder(None, None, None, self.caution_below, self.warning_below, self.critical_below)

    @property
    def healthy(self) -> tuple[float, float]:
        """(lowest, highest) healthy value, both healthy themselves."""
        above = [limit for _, limit, _ in self.rungs() if limit is not None]
        below = [limit for _, _, limit in self.rungs() if limit is not None]
        return max(below, default=-math.inf), min(above, default=math.inf)

    def limit(self, severity: Severity, value: float) -> float | None:
        """The limit of ``severity`` that ``value`` passed, or None when it passed none (or is NaN)."""
        for rung, above, below in self.rungs():
            if rung is severity:
                if above is not None and value > above:
                    return above
                if below is not None and value < below:
                    return below
        return None
