"""The skeleton of the Live page as HTML, drawn once: strip, diagram, alerts, toolbar, chart holders. Pure."""

from app.figures import lifecycle, strip
from app.theme import phase_token
from trainer_core.spec.phases import Phase

RANGES = ((200, "200"), (1000, "1k"), (10_000, "10k"), (0, "All"))
DEFAULT_RANGE = 1000


def html() -> str:
    """Everything but the values."""
    return (
        '<div class="hy-banner" role="alert"></div>'
        f"{strip.html()}"
        '<div class="hy-two"><section class="hy-card"><h3>Lifecycle</h3>'
        f'{lifecycle.svg()}<p class="hy-cause" data-bind="life.cause"></p>'
        '<p class="hy-note" data-bind="life.verdicts"></p></section>'
        '<section class="hy-card hy-alertcard"><h3>Alerts <small data-bind="strip.alerts"></small></h3>'
        '<ul class="hy-list" data-list="alerts" data-empty="No threshold has been crossed."></ul>'
        '<h3 class="hy-lately">Lately</h3>'
        '<ul class="hy-list hy-small" data-list="happenings" data-empty="Nothing yet."></ul></section></div>'
        f"{_toolbar()}"
        f"{_chart('loss', _legend())}"
        f'<div class="hy-pair">{_chart("confidence")}{_chart("gradient")}</div>'
    )


def _toolbar() -> str:
    buttons = "".join(
        f'<button type="button" data-last="{last}" aria-pressed="{str(last == DEFAULT_RANGE).lower()}">{label}</button>'
        for last, label in RANGES
    )
    return (
        f'<div class="hy-tools"><span>Last steps</span><div class="hy-group">{buttons}</div>'
        '<button type="button" class="hy-log" aria-pressed="false">log loss</button>'
        '<span class="hy-follow">following the newest step</span>'
        '<button type="button" class="hy-refollow" hidden>Follow again</button>'
        '<span class="hy-hint">drag to zoom, double-click to follow</span></div>'
    )


def _chart(name: str, legend: str = "") -> str:
    return (
        f'<section class="hy-card hy-chart" data-figure="{name}"><header><h3></h3><small></small>{legend}</header>'
        f'<div class="hy-plot hy-plot-{name}"></div></section>'
    )


def _legend() -> str:
    phases = "".join(
        f'<span class="hy-key"><i class="hy-chip" style="background: var(--hy-{phase_token(phase)})">{phase.letter}</i>'
        f"{phase.value.lower()}</span>"
        for phase in Phase
    )
    return (
        f'<div class="hy-legend">{phases}<span class="hy-key"><i class="hy-line"></i>measured</span>'
        '<span class="hy-key"><i class="hy-line hy-dashed"></i>predicted ± error</span>'
        '<span class="hy-key"><i class="hy-line hy-pale"></i>abandoned</span>'
        '<span class="hy-key"><b>▼</b>command</span><span class="hy-key"><b>✕</b>undone prediction</span></div>'
    )
