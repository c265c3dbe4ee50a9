"""The Live page: is it healthy, where is it, what happened. Lays out; computes and draws nothing itself."""

from app.figures import confidence, gradient, lifecycle, loss, strip
from app.figures.lifecycle import Binds
from app.figures.spec import Json
from app.screens import blocks
from app.screens.page import Lists, LivePage, Moment
from app.theme import ICON
from app.views import words
from app.views.alerts import Alert, alerts
from app.views.commands import STEERABLE
from app.views.happenings import Happening, happenings
from app.views.incident import incident
from app.views.lifecycle import OWN_LOOP
from app.views.lifecycle import lifecycle as lifecycle_view
from app.views.own_values import own_values
from trainer_core.spec.phases import Phase
from trainer_core.spec.severity import Severity

MOST_ALERTS = 30


def html() -> str:
    """Everything but the values."""
    return blocks.page(
        strip.html(),
        f'<div class="hy-two"><section class="hy-card">{_own_loop()}<div class="hy-phased"><h3>Lifecycle</h3>'
        f'{lifecycle.svg()}<p class="hy-cause" data-bind="life.cause"></p>'
        '<p class="hy-note" data-bind="life.verdicts"></p></div></section>'
        '<section class="hy-card hy-alertcard"><h3>Alerts <small data-bind="strip.alerts"></small></h3>',
        blocks.listing("alerts", "No threshold has been crossed."),
        '<h3 class="hy-lately">Lately</h3>',
        blocks.listing("happenings", "Nothing yet.", css="hy-small"),
        "</section></div>",
        blocks.toolbar(),
        blocks.chart("loss", _legend()),
        blocks.columns(blocks.chart("confidence"), blocks.chart("gradient"), kind="pair hy-signals"),
    )


def _own_loop() -> str:
    """In place of the diagram, for a loop that has no phases."""
    values = blocks.live_table("own.values", ("", "Newest", "At step"), "Nothing has been reported yet.")
    return (
        f'<div class="hy-own" data-on="life.own"><h3>What the loop reports</h3>{values}'
        f'<p class="hy-note">{blocks.text(OWN_LOOP)}</p></div>'
    )


def binds(moment: Moment) -> Binds:
    """The lifecycle's values; the strip's are on every page."""
    return {"life.own": moment.snapshot.own_loop} | lifecycle.binds(lifecycle_view(moment.snapshot))


def lists(moment: Moment) -> Lists:
    """Alerts and what happened lately."""
    return {
        "alerts": [_alert_item(alert, moment) for alert in alerts(moment.snapshot)[:MOST_ALERTS]],
        "happenings": [_happening_item(happening) for happening in happenings(moment.snapshot)],
    }


def tables(moment: Moment) -> tuple[Binds, Lists]:
    """What a loop without phases says of itself."""
    rows = [
        {"cells": [one.name, one.value, words.count(one.step) if one.step is not None else one.note]}
        for one in own_values(moment.snapshot)
    ]
    return {}, {"own.values": rows}


PAGE = LivePage(
    "live",
    html,
    binds,
    lists,
    tables,
    figures={
        "loss": lambda m, look: loss.figure(loss.view(m.snapshot, look)),
        "confidence": lambda m, look: confidence.figure(confidence.view(m.snapshot, look, m.config)),
        "gradient": lambda m, look: gradient.figure(gradient.view(m.snapshot, look, m.config)),
    },
)


def _alert_item(alert: Alert, moment: Moment) -> Json:
    opened, answered = alert.resolved_step is None, incident(moment.snapshot)
    done = answered is not None and alert.seq < answered.seq and alert.severity is Severity.CRITICAL
    offered = opened and alert.remedy and not done and moment.status.state in STEERABLE
    return {
        "severity": alert.severity.name.lower(),
        "icon": ICON[alert.severity],
        "message": alert.said,
        "detail": " · ".join(part for part in (alert.standing, alert.detail) if part not in ("", "open")),
        "step": alert.step,
        "open": opened,
        "press": [blocks.press_remedy(alert.remedy)] if offered else [],
    }


def _happening_item(happening: Happening) -> Json:
    return {
        "severity": "muted",
        "icon": happening.icon,
        "message": happening.text,
        "detail": "",
        "step": happening.step,
        "open": False,
    }


def _legend() -> str:
    phases = (f'<span class="hy-key">{blocks.chip(phase)}{phase.value.lower()}</span>' for phase in Phase)
    return blocks.legend(
        _of_phases(*phases),
        blocks.key(blocks.stroke("measured"), "measured", "measured", "alone", "ema"),
        _of_phases(
            blocks.key(blocks.stroke("phase_predict", "dashed"), "predicted ± error", "predicted", "predicted_alone")
        ),
        blocks.key(blocks.stroke("abandoned"), "abandoned", "abandoned", "predicted_abandoned"),
        blocks.key("<b>▼</b>", "command", "mark_commands"),
        _of_phases(blocks.key("<b>✕</b>", "undone prediction", "mark_undone")),
    )


def _of_phases(*parts: str) -> str:
    """What a loop without phases does not have."""
    return f'<span class="hy-of-phases">{"".join(parts)}</span>'
