"""The list of commands as HTML, every text escaped. Pure."""

from collections.abc import Sequence
from html import escape

from app.theme import TOKENS
from app.views.commands import Life


def html(lives: Sequence[Life], mode: str, most: int = 40) -> str:
    """Newest first; ``mode`` is light or dark."""
    if not lives:
        return '<p style="opacity:.7;margin:0">No command has been sent to this run yet.</p>'
    rows = "".join(_row(life, TOKENS[mode]) for life in lives[:most])
    more = (
        f"<p style='opacity:.7'>{len(lives) - most:,} older ones are in the journal.</p>" if len(lives) > most else ""
    )
    return f'<div data-testid="hy-commands" style="font-size:14px">{rows}</div>{more}'


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
        "</div>"
    )
