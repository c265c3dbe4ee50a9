"""One line of where a run is, as HTML. Pure."""

from html import escape

from app.theme import ON_PHASE, PHASE, TOKENS
from app.views.strip import Strip
from app.views.words import ABSENT


def html(seen: Strip, mode: str) -> str:
    """State, phase, step, confidence and alerts, what is known of them; ``mode`` is light or dark."""
    colours = TOKENS[mode]
    tone = colours[seen.tone]
    edge = colours[seen.worst_tone] if seen.worst else tone
    badge = (
        f'<span style="background:{PHASE[seen.phase]};color:{ON_PHASE[seen.phase]};border-radius:5px;padding:1px 8px;'
        f'font-weight:700;font-size:12.5px">{seen.phase.letter} {seen.phase.value}</span>'
        if seen.phase
        else ""
    )
    known = {"": seen.rate, "confidence ": ABSENT if seen.own_loop else seen.confidence}
    said = [f"{what}{value}" for what, value in known.items() if value != ABSENT]
    of = f" of {seen.total}" if seen.total != ABSENT else ""
    facts = " · ".join([f"step {seen.step}{of}", *said, f"alerts: {seen.alerts}"])
    typed = f' <code style="font-size:13px">{escape(seen.command)}</code>' if seen.command else ""
    advice = f'<span style="flex-basis:100%;font-size:13px">{escape(seen.advice)}{typed}</span>' if seen.advice else ""
    worst = (
        f'<b style="flex-basis:100%;font-size:13px;color:{colours[seen.worst_tone]}">{escape(seen.worst)}</b>'
        if seen.worst
        else ""
    )
    return (
        f'<div data-testid="hy-now" style="display:flex;flex-wrap:wrap;gap:4px 10px;align-items:center;'
        f"padding:8px 12px;border:1px solid {colours['line']};border-left:4px solid {edge};border-radius:8px;"
        f'background:{colours["raised"]};font-size:14px;color:{colours["text"]}">'
        f'<b style="color:{tone};text-transform:capitalize">{escape(seen.state)}</b>{badge}'
        f'<span style="font-variant-numeric:tabular-nums">{escape(facts)}</span>'
        f'<span style="color:{colours["muted"]}">{escape(seen.because)}</span>{worst}{advice}</div>'
    )
