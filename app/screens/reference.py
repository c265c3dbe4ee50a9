"""The Reference page: the document's tables with the live value beside each limit, settings and exports. Lays out."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from app.figures import strip
from app.figures.lifecycle import Binds
from app.figures.spec import Json
from app.screens import blocks
from app.screens.page import Lists, LivePage, Moment
from app.views import configuration, reference
from app.views.commands import STEERABLE
from app.views.configuration import Line
from app.views.exports import EXPORTS
from app.views.remedy import plan
from app.views.words import ABSENT
from trainer_core.spec.document import EMERGENCIES

UNKNOWN = "The run has not told its settings yet."
LIMITS = "those that act on a loop of its own: the limits of its alerts"
NO_PHASES = "A loop watched by a Monitor has no phases."
SETTING_HEAD = ("Setting", "In force", "At the start", "Nearest preset", "Default", "Unit", "Meaning")


@dataclass(frozen=True)
class Card:
    """One table of the page."""

    title: str
    head: tuple[str, ...]
    empty: str = UNKNOWN
    note: str = ""


TABLES = {
    "phases": Card(
        "Phase quick reference",
        ("Phase", "Compute", "Duration", "Purpose", "Steps here", "Share", "Entered", "Mean length", ""),
        NO_PHASES,
        "Duration: the document's steps. Beside it what this run did.",
    ),
    "thresholds": Card(
        "Critical thresholds", ("Metric", "Healthy", "Warning", "Critical", "Now"), note="Under the settings in force."
    ),
    "zones": Card("Gradient norm zones", ("Zone", "Range", "Status", "Action", "Now")),
    "triggers": Card(
        "Divergence triggers",
        ("Signal", "Limit", "Now", "Action"),
        note="What ends PREDICT early. In PREDICT there is no gradient: its triggers judge the update.",
    ),
    "transitions": Card(
        "Transitions",
        ("From", "To", "Taken, any cause", "Cause", "Conditions", "Now"),
        NO_PHASES,
        "The first row out of the present phase whose conditions all hold is taken.",
    ),
    "hyperparameters": Card(
        "Hyperparameter reference",
        ("Parameter", "Small (100M-500M)", "Medium (500M-3B)", "Large (3B-70B)", "This run", ""),
    ),
    "aspects": Card("Specialist vs generalist", ("Aspect", "Specialist", "Generalist", "This run")),
    "schedules": Card("Schedule selection guide", ("Training type", "Recommended schedule", "Reason", "")),
    "expected": Card(
        "Expected performance",
        ("Preset", "Speedup", "Loss gap", "Backward reduction"),
        note="What the document expects. What this run has measured is in the account under this page.",
    ),
}
"""By the name of its list."""


def html() -> str:
    """Everything but the values."""
    pair = blocks.columns
    emergencies = blocks.card(
        "Emergency actions",
        _emergencies(),
        note="The button opens Control with the action filled in; nothing is sent before it is confirmed there.",
    )
    return blocks.page(
        strip.html(),
        _card("phases"),
        pair(_card("thresholds"), _card("zones")),
        pair(_card("triggers"), emergencies),
        _card("transitions"),
        pair(_card("hyperparameters"), _card("aspects")),
        pair(_card("schedules"), _card("expected")),
        blocks.card(
            "Settings of this run",
            blocks.live_table("differing", SETTING_HEAD, "Every setting has its default."),
            f"<details><summary>All settings</summary>{blocks.live_table('settings', SETTING_HEAD, UNKNOWN)}</details>",
            bound="reference.preset",
            note="Those that differ from the default, the nearest preset or the start of the run.",
        ),
        blocks.card(
            "Export",
            blocks.listing("exports", "No run.", kind="links"),
            note="Written by a process of its own, so that watching goes on; a million steps take about a minute.",
        ),
    )


def _card(name: str) -> str:
    found = TABLES[name]
    return blocks.card(found.title, blocks.live_table(name, found.head, found.empty), note=found.note)


def _emergencies() -> str:
    rows = [
        (
            blocks.text(row.problem),
            blocks.text(row.fix),
            blocks.bound(f"emergency.{row.remedy}"),
            f'<span class="hy-offer" data-on="emergency.{row.remedy}.can">{blocks.remedy(row.remedy)}</span>',
        )
        for row in EMERGENCIES
    ]
    return blocks.table(("Problem", "Immediate fix", "Would change now", ""), rows)


def _binds(moment: Moment) -> Binds:
    """What each emergency action would change, and which preset is nearest."""
    found = configuration.resolved(moment.snapshot, moment.config)
    near = UNKNOWN
    if found:
        near = f"nearest preset: {found.preset} ({found.agree} of {found.of} settings agree)"
        near = LIMITS if moment.snapshot.own_loop else near
    values: Binds = {"reference.preset": near}
    for row in EMERGENCIES:
        would = plan(moment.snapshot, row.remedy, moment.config)
        lines = would.lines if would is not None else ()
        values[f"emergency.{row.remedy}"] = "; ".join(line.text for line in lines) or (
            (would.cannot or "nothing: at its bound already") if would is not None else ABSENT
        )
        values[f"emergency.{row.remedy}.can"] = bool(lines) and moment.status.state in STEERABLE
    return values


def _lists(moment: Moment) -> Lists:
    """Every table."""
    snapshot, config = moment.snapshot, moment.config
    found = configuration.resolved(snapshot, config)
    lines = found.lines if found is not None else ()
    known = config is not None
    own = config if not snapshot.own_loop else None  # what a Monitor's loop does is not in its settings
    phased = not snapshot.own_loop and known
    return {
        "phases": _rows(reference.phases(snapshot)) if phased else [],
        "transitions": _rows(reference.transitions(snapshot)) if phased else [],
        "thresholds": _rows(reference.thresholds(snapshot, config)) if config is not None else [],
        "zones": _rows(reference.zones(snapshot, config)) if config is not None else [],
        "triggers": _rows(reference.triggers(snapshot, config)) if config is not None else [],
        "hyperparameters": _rows(reference.hyperparameters(own)) if known else [],
        "aspects": _rows(reference.specialist_generalist(own)) if known else [],
        "schedules": _rows(reference.schedules(own)) if known else [],
        "expected": _rows(reference.expected(snapshot)) if known else [],
        "differing": [_setting(line) for line in lines if line.differs],
        "settings": [_setting(line) for line in lines],
        "exports": [_export(moment.name, kind) for kind in EXPORTS],
    }


def _rows(rows: Sequence[reference.Row]) -> list[Json]:
    return [{"cells": list(row.cells), "tone": row.tone} for row in rows]


def _setting(line: Line) -> Json:
    cells = [line.name, line.now, line.began, line.preset, line.default, line.setting.unit, line.setting.meaning]
    return {"cells": cells, "tone": "warning" if line.changed else ""}


def _export(run: str, kind: str) -> Json:
    query = urlencode({"run": run, "kind": kind})
    return {"text": EXPORTS[kind].label, "note": EXPORTS[kind].note, "href": f"/live/export?{query}"}


def tables(moment: Moment) -> tuple[Binds, Lists]:
    """All of it: nothing here is worth more than one look a second."""
    return _binds(moment), _lists(moment)


PAGE = LivePage("reference", html, tables=tables)
