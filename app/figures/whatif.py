"""The answer to "what if" as HTML: two values side by side, what kept steps out, what stays unknown. Pure."""

from html import escape

from app.theme import ICON, TOKENS
from app.views.whatif import WhatIf

GUARDS = {
    "full_cycle_ran": "the window of full steps was not over",
    "confident": "the proposal was not trusted",
    "calm": "too soon after a divergence",
    "unlocked": "prediction was locked",
    "no look taken": "no proposal was looked at",
}


def html(found: WhatIf, mode: str) -> str:
    """``mode`` is light or dark."""
    colours = TOKENS[mode]
    sides = (found.now, found.then)
    predictions = [
        ("predictions begun", *(f"{side.begun:,}" for side in sides)),
        ("predicted steps", *(f"{side.predicted:,}" for side in sides)),
    ]
    rows = [
        *(predictions if found.phases else []),
        *_counts("full steps kept full", [found.now.blocked, found.then.blocked], GUARDS),
        *_counts("predictions ended", [found.now.ended, found.then.ended], {}),
        *([("automatic rollbacks", f"{found.now.rollbacks:,}", f"{found.then.rollbacks:,}")] if _rolls(found) else []),
        *(
            (f"{ICON[rung.severity]} {rung.signal} at {rung.severity.name.lower()}", f"{rung.now:,}", f"{rung.then:,}")
            for rung in found.rungs
        ),
    ]
    cell = f"padding:2px 10px 2px 0;border-top:1px solid {colours['line']};"
    body = "".join(
        f'<tr><td style="{cell}">{escape(name)}</td><td style="{cell}text-align:right">{now}</td>'
        f'<td style="{cell}text-align:right;font-weight:{700 if now != then else 400}">{then}</td></tr>'
        for name, now, then in rows
    )
    unknown = "".join(f"<li>{escape(sentence)}</li>" for sentence in found.unknown)
    return (
        f'<div data-testid="hy-whatif" style="font-size:13.5px;color:{colours["text"]}">'
        f'<p style="margin:0 0 4px"><b>What if:</b> {escape(found.headline)}</p>'
        '<table style="border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums">'
        f'<thead><tr><th scope="col" style="text-align:left;font-weight:400;color:{colours["muted"]}">steps '
        f"{found.first_step:,} to {found.last_step:,}{f', {found.looks:,} looks' if found.phases else ''}</th>"
        f'<th scope="col" style="text-align:right;padding-right:10px">{found.now.value:g} (in force)</th>'
        f'<th scope="col" style="text-align:right;padding-right:10px">{found.then.value:g}</th></tr></thead>'
        f"<tbody>{body}</tbody></table>{_cannot(unknown, colours['muted'])}</div>"
    )


def _cannot(sentences: str, ink: str) -> str:
    """What stays unknown, folded; nothing where nothing does."""
    if not sentences:
        return ""
    return (
        f'<details style="color:{ink};margin-top:4px"><summary>What this cannot know</summary>'
        f'<ul style="margin:2px 0 0 18px;padding:0">{sentences}</ul></details>'
    )


def _rolls(found: WhatIf) -> bool:
    return bool(found.now.rollbacks or found.then.rollbacks)


def _counts(what: str, sides: list[tuple[tuple[str, int], ...]], names: dict[str, str]) -> list[tuple[str, str, str]]:
    """One row for each cause that either side has."""
    now, then = (dict(side) for side in sides)
    causes = sorted({*now, *then}, key=lambda cause: -max(now.get(cause, 0), then.get(cause, 0)))
    return [
        (f"{what}: {names.get(cause, cause)}", f"{now.get(cause, 0):,}", f"{then.get(cause, 0):,}") for cause in causes
    ]
