"""The Alerts page: what is wrong, what to press, every rule and its live value. Lays out, draws nothing."""

from html import escape
from urllib.parse import urlencode

from app.figures import strip
from app.figures.lifecycle import Binds
from app.figures.spec import Json
from app.screens import blocks
from app.screens.page import Lists, LivePage, Moment
from app.theme import ICON
from app.views import alerts, rules, troubles
from app.views.commands import STEERABLE
from app.views.remedy import Plan
from trainer_core.spec.severity import Severity
from trainer_core.spec.troubleshooting import ISSUES, Issue

MOST_PAST = 60
AROUND = 200
"""Steps before and after an alert that its link shows."""
RULE_HEAD = ("Rule", "Signal", "Now", "Caution", "Warning", "Critical", "Hold / recovery", "Phases", "State")
_UNKNOWN = "The run has not told its settings yet."
DIFF_HEAD = ("Setting", "Now", "Change to", "Why", "When")


def html() -> str:
    """Everything but the values."""
    return blocks.page(
        strip.html(),
        blocks.card("Alerts", _filters(), blocks.listing("entries", "No threshold has been crossed.", kind="entries"),
                    bound="alerts.count", css="hy-feedcard"),
        blocks.card("Critical thresholds", blocks.listing("thresholds", _UNKNOWN, kind="ladder"),
                    note="The document's ladder under the settings in force. The needle is the newest measured value."),
        blocks.card("Rules", blocks.live_table("rules", RULE_HEAD, _UNKNOWN),
                    note="Hold: steps in a row past a limit before the alert is raised. Recovery: healthy steps before "
                    "it is resolved. W F P C: the phases in which it watches."),
        blocks.heading("Troubleshooting guide", "the document's five issues, with the symptoms this run shows now"),
        blocks.columns(*(_issue(issue) for issue in ISSUES)),
    )  # fmt: skip


def lists(moment: Moment) -> Lists:
    """The ladders' needles."""
    return {"thresholds": [_ladder(found) for found in rules.threshold_ladders(moment.snapshot, moment.config)]}


def tables(moment: Moment) -> tuple[Binds, Lists]:
    """The feed, the rules, and every issue of the guide."""
    snapshot, config, log = moment.snapshot, moment.config, moment.snapshot.side.alerts
    found = {trouble.issue.key: trouble for trouble in troubles.troubles(snapshot, config)}
    values: Binds = {"alerts.count": _count(len(log.open), len(log.resolved), log.count)}
    filled: dict[str, list[Json]] = {
        "entries": [_entry(entry, moment) for entry in alerts.feed(snapshot, config, MOST_PAST)],
        "rules": [_rule(line) for line in rules.rule_lines(snapshot, config)] if config is not None else [],
    }
    for issue in ISSUES:
        trouble, key = found.get(issue.key), issue.key
        values |= _head(key, trouble, _steerable(moment))
        filled[f"symptoms.{key}"] = [_line(line) for line in trouble.symptoms] if trouble else []
        filled[f"mended.{key}"] = [_line(line) for line in trouble.mended] if trouble else []
        filled[f"changes.{key}"] = [_change(line) for line in trouble.changes] if trouble else []
    return values, filled


def _head(key: str, trouble: troubles.Trouble | None, steerable: bool) -> Binds:
    """What moves in the head and the foot of an issue."""
    found = trouble.plan if trouble is not None else None
    return {
        f"issue.{key}": trouble.headline if trouble else _UNKNOWN,
        f"issue.{key}.tone": trouble.tone if trouble else "muted",
        f"issue.{key}.remedy": _remedy_text(found),
        f"issue.{key}.can": bool(found and found.lines and steerable),
    }


def _change(line: troubles.ChangeLine) -> Json:
    return {"cells": [line.name, line.now, line.value, line.why, line.when], "tone": ""}


def _filters() -> str:
    severities = "".join(
        f'<button type="button" data-severity="{severity.name.lower()}" aria-pressed="true">'
        f"{ICON[severity]} {severity.name.lower()}</button>"
        for severity in (Severity.CRITICAL, Severity.WARNING, Severity.CAUTION)
    )
    options = "".join(f"<option>{escape(rule.name)}</option>" for rule in rules.ALL_RULES)
    return (
        '<div class="hy-tools hy-filters" data-filters="entries" role="toolbar" aria-label="Filter of the alerts">'
        f'<div class="hy-group" role="group" aria-label="Severity">{severities}</div>'
        f'<label>rule <select aria-label="Rule"><option value="">all</option>{options}</select></label>'
        '<label><input type="checkbox"> open only</label><output></output></div>'
    )


def _issue(issue: Issue) -> str:
    """The card of one issue."""
    causes = "".join(f"<li>{escape(cause)}</li>" for cause in issue.causes)
    key = f"issue.{issue.key}"
    return (
        f'<section class="hy-card hy-issue" id="hy-issue-{issue.key}" data-tone="{key}.tone">'
        f'<h3>{escape(issue.title)} <small data-bind="{key}"></small></h3>'
        + "<h4>Symptoms</h4>"
        + blocks.listing(f"symptoms.{issue.key}", _UNKNOWN, kind="symptoms")
        + f"<h4>Likely causes</h4><ol>{causes}</ol><h4>The document's change of settings</h4>"
        + blocks.live_table(f"changes.{issue.key}", DIFF_HEAD, _UNKNOWN)
        + "<h4>It has helped when</h4>"
        + blocks.listing(f"mended.{issue.key}", _UNKNOWN, kind="checks")
        + f'<div class="hy-offer" data-on="{key}.can">{blocks.remedy(issue.remedy)}'
        f'<span data-bind="{key}.remedy"></span></div></section>'
    )


def _count(opened: int, resolved: int, count: int) -> str:
    older = count - opened - resolved
    more = f" · {older:,} older ones are in the journal" if older > 0 else ""
    return f"{opened} open · {count:,} in all{more}"


def _steerable(moment: Moment) -> bool:
    return moment.status.state in STEERABLE


def _entry(found: alerts.Entry, moment: Moment) -> Json:
    plan = found.plan
    why = f"likely: {found.causes}" if found.causes else ""
    if found.advice:
        why += f" · for the next run: {found.advice}"
    window = {"run": moment.name, "from": max(0, found.first_step - AROUND), "to": found.step + AROUND}
    return {
        "id": found.alert_id,
        "rule": found.rule,
        "severity": found.severity.name.lower(),
        "icon": ICON[found.severity],
        "message": found.said,
        "step": found.step,
        "href": f"/?{urlencode(window)}",
        "open": found.open,
        "path": found.path,
        "why": why if found.open else "",
        "holds": found.holds if found.open else "",
        "remedy": _remedy_text(plan) if plan is not None else "",
        "diff": _diff(plan) if plan is not None else [],
        "press": _presses(found) if found.open and _steerable(moment) else [],
    }  # fmt: skip


def _diff(plan: Plan) -> list[Json]:
    return [{"name": line.name, "before": line.before, "after": line.after} for line in plan.lines]


def _presses(found: alerts.Entry) -> list[Json]:
    """The buttons of an open alert."""
    pressable: list[Json] = []
    if found.plan is not None and found.plan.lines:
        pressable.append(blocks.press_remedy(found.plan.remedy))
    if found.can_acknowledge:
        title = "Say that you have seen it (key: a)"
        pressable.append({"what": "acknowledge", "which": found.alert_id, "label": "Acknowledge", "title": title})
    if found.can_silence:
        title = "Raise this rule no more for a number of steps"
        pressable.append({"what": "silence", "which": found.rule, "label": "Silence…", "title": title})
    return pressable


def _remedy_text(plan: Plan | None) -> str:
    if plan is None:
        return "Nothing of it can be changed while training runs."
    if not plan.lines:
        return f"Remedy {plan.remedy}: {plan.nothing}."
    cost = f" Throws away {plan.throws_away}." if plan.throws_away else ""
    doubt = f" But: {plan.against}." if plan.against else ""
    return f"Remedy {plan.remedy}: {plan.meaning}{cost}{doubt} "


def _ladder(found: rules.Rungs) -> Json:
    return {
        "label": found.label,
        "segments": [{"tone": piece.tone, "text": piece.text} for piece in found.segments],
        "at": None if found.at is None else round(found.at, 3),
        "value": found.value,
        "tone": found.tone,
    }


def _rule(line: rules.RuleLine) -> Json:
    cells = [line.name, line.signal, line.live, line.caution, line.warning, line.critical, line.hold, line.phases,
             line.standing]  # fmt: skip
    return {"cells": cells, "tone": line.tone}


def _line(line: troubles.Line) -> Json:
    return {"met": line.shows, "text": line.text, "detail": line.detail}


PAGE = LivePage("alerts", html, lists=lists, tables=tables)
