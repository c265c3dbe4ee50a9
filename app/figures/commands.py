"""The list of commands as HTML, every text escaped. Pure."""

import time
from collections.abc import Sequence
from html import escape

from app.theme import TOKENS
from app.views.commands import Life, Stage


def html(lives: Sequence[Life], mode: str, total: int = 0, name: str = "hy-commands") -> str:
    """Newest first; ``mode`` is light or dark; ``total``: of how many these are the newest."""
    muted = TOKENS[mode]["muted"]
    if not lives:
        return f'<p style="color:{muted};margin:0">No command has been sent to this run yet.</p>'
    rows = "".join(_row(life, TOKENS[mode]) for life in lives)
    older = total - len(lives)
    more = f'<p style="color:{muted}">{older:,} older ones are in the audit.</p>' if older > 0 else ""
    return f'<div data-testid="{name}" style="font-size:14px">{rows}</div>{more}'


def _row(life: Life, colours: dict[str, str]) -> str:
    state = life.state.value if life.state is not None else "unknown"
    reason = f" · “{escape(life.reason)}”" if life.reason else ""
    return (
        f'<div data-command="{escape(life.command_id)}" data-state="{escape(state)}" style="display:grid;'
        f'grid-template-columns:22px 1fr;gap:0 6px;padding:8px 0;border-top:1px solid {colours["line"]}">'
        f'<span style="color:{colours[life.tone]};font-weight:700">{escape(life.icon)}</span>'
        f"<span><b>{escape(life.title)}</b>"
        f'<span style="color:{colours["muted"]}"> by {escape(life.actor or "this page")}{reason}</span></span>'
        f'<span></span><span style="color:{colours[life.tone]};overflow-wrap:anywhere">{escape(life.sentence)}</span>'
        f"{_quiet(_way(life.stages), colours)}{_quiet(life.effect, colours)}</div>"
    )


def _quiet(text: str, colours: dict[str, str]) -> str:
    """A further line; nothing for an empty one."""
    return f'<span></span><span style="color:{colours["muted"]};font-size:12.5px">{escape(text)}</span>' if text else ""


def _way(stages: Sequence[Stage]) -> str:
    """``accepted 12:03:01 → applied 12:03:02 (0.4 s)``; only where there was a way."""
    if len(stages) < 2:
        return ""
    parts = [f"{stage.state.value} {time.strftime('%H:%M:%S', time.gmtime(stage.time))}" for stage in stages]
    return f"{' → '.join(parts)} UTC ({stages[-1].time - stages[0].time:.1f} s)"
