"""The status strip as HTML, drawn once, and the values bound to it by name. Pure."""

from app.figures.lifecycle import Binds
from app.views import words
from app.views.strip import Strip

CELLS = (
    ("Step", "strip.step", "strip.total"),
    ("Speed", "strip.rate", ""),
    ("Time left", "strip.eta", ""),
    ("Last step", "strip.last_step", ""),
    ("Confidence", "strip.confidence", ""),
    ("Backward saved", "strip.saved", ""),
    ("Attempt", "strip.attempt", ""),
)
OF_PHASES = ("strip.confidence", "strip.saved")
"""What a loop without phases does not have: not shown there."""


def html() -> str:
    """The strip without values."""
    cells = "".join(_cell(*cell) for cell in CELLS)
    return (
        '<div class="hy-strip" data-tone="strip.tone" data-on="strip.own">'
        '<div class="hy-state"><span class="hy-dot"></span><b data-bind="strip.state"></b>'
        '<span class="hy-phase" data-phase-of="strip.phase" data-bind="strip.phase"></span>'
        '<span class="hy-lock" data-on="strip.locked">🔒 prediction locked</span>'
        '<span class="hy-because" data-bind="strip.because"></span>'
        '<span class="hy-via" data-bind="feed.via"></span>'
        '<button type="button" class="hy-again">Replay the recording</button></div>'
        f'<div class="hy-cells">{cells}'
        '<div class="hy-cell hy-alerts" data-tone="strip.alerts_tone"><span>Alerts</span>'
        '<b data-bind="strip.alerts"></b></div></div>'
        '<div class="hy-bar" data-on="strip.bounded"><i data-scale="strip.progress"></i></div>'
        '<div class="hy-advice"><span data-bind="strip.advice"></span> <code data-bind="strip.command"></code></div>'
        '<div class="hy-worst" data-tone="strip.worst_tone"><b data-bind="strip.worst"></b>'
        '<button type="button" class="hy-main" data-press="control" data-which-of="strip.remedy">'
        f"{words.REMEDY}</button>"
        '<button type="button" class="hy-goto" data-goto="Alerts">Its alert</button></div></div>'
    )


def binds(seen: Strip) -> Binds:
    """The values of the strip."""
    return {
        "strip.tone": seen.tone,
        "strip.own": seen.own_loop,
        "strip.bounded": seen.total != words.ABSENT,
        "strip.state": seen.state,
        "strip.because": seen.because,
        "strip.advice": seen.advice,
        "strip.command": seen.command,
        "strip.worst": seen.worst,
        "strip.worst_tone": seen.worst_tone,
        "strip.remedy": seen.remedy,
        "strip.phase": f"{seen.phase.letter} {seen.phase.value}" if seen.phase else "",
        "strip.locked": seen.locked,
        "strip.step": seen.step,
        "strip.total": f"of {seen.total}" if seen.total != words.ABSENT else "",
        "strip.progress": round(seen.progress, 3),
        "strip.rate": seen.rate,
        "strip.eta": seen.eta,
        "strip.last_step": seen.last_step,
        "strip.confidence": seen.confidence,
        "strip.saved": seen.saved,
        "strip.attempt": seen.attempt,
        "strip.alerts": seen.alerts,
        "strip.alerts_tone": seen.alerts_tone,
    }


def _cell(label: str, key: str, extra: str) -> str:
    if not extra:
        css = "hy-cell hy-phases-only" if key in OF_PHASES else "hy-cell"
        return f'<div class="{css}"><span>{label}</span><b data-bind="{key}"></b></div>'
    value = f'<b data-bind="{key}"></b> <small data-bind="{extra}"></small>'
    return f'<div class="hy-cell hy-wide"><span>{label}</span><div>{value}</div></div>'
