"""Numbers and durations as people read them. Knows nothing of runs."""

import math
import re

ABSENT = "–"
MOST_WHOLE = 1e12
"""Larger numbers are said by their power of ten."""
_SIGNS = re.compile(r"([\\`*_\[\]<$~]|:(?=[\w/]))")
REMEDY = "Remedy on Control…"
"""The button of a remedy, the same on every page."""


def duration(seconds: float | None) -> str:
    """``42 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds is None or not math.isfinite(seconds):
        return ABSENT
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def age(seconds: float | None) -> str:
    """How long ago; coarse, so that a screen is not redrawn for nothing."""
    if seconds is None:
        return ABSENT
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds // unit:,.0f} {name} ago"
    return "now" if seconds < 2 else f"{duration(seconds)} ago"


def number(value: float | None, digits: int = 3) -> str:
    """A measured value; NaN and infinities are said as they are."""
    if value is None:
        return ABSENT
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:,.0f}" if 10**digits <= abs(value) < MOST_WHOLE else f"{value:.{digits}g}"


def count(value: float | None) -> str:
    """A whole number with thousands set apart."""
    return ABSENT if value is None else f"{value:,.0f}"


def change(percent: float) -> str:
    """``+12 %``, ``-0.4 %``, ``±0 %``; never the minus of a zero."""
    said = f"{percent:+.{0 if abs(percent) >= 10 else 1}f}"
    return "±0 %" if float(said) == 0 else f"{said} %"


def several(number_: int, unit: str, many: str = "") -> str:
    """``1 step``, ``20 steps``; ``many`` where it is not made by an s."""
    return f"{number_:,} {unit if number_ == 1 else many or unit + 's'}"


def short(name: str, most: int = 40) -> str:
    """A name that fits into its box: the middle of a longer one is left out, as names often differ at the end."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-(most // 2 - 1) :]}"


def plain(text: str) -> str:
    """Words that came from outside, for Markdown: it shows them as they are, and finds no link, image or colour."""
    return _SIGNS.sub(r"\\\1", text)


def percent(part: float) -> str:
    """A share that was measured, in percent: ``98.3 %``; also one that cannot be a share."""
    value = 100.0 * part
    return f"{value:.1f} %" if abs(value) < 1e4 else f"{number(value)} %"


def reason(because: str) -> str:
    """The first of several reasons, which is what was measured; the state machine shows the guards behind it."""
    return because.split("; ")[0].replace("->", "→")


def share(part: float, whole: float) -> str:
    """A percentage, or a dash where there is no whole."""
    return f"{100 * part / whole:.0f} %" if whole else ABSENT
