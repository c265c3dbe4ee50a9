"""A number and the button that sends it, as one component. Knows no run.

The browser knows whether somebody is typing; so it alone decides whether the field follows the value in force or keeps
what was typed. A Streamlit number field keeps its first value, or, made anew at each change, throws away what is typed.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from app.parts import component_key

STATIC = Path(__file__).parent / "static"
HTML = (
    '<form class="hy-field" autocomplete="off"><label><span>Value</span><input type="number" required></label>'
    '<button type="submit">Set</button><output role="status"></output>'
    '<button type="button" class="hy-follow-run" hidden>Take it</button></form>'
)
"""Its script writes the words; until then, too, nothing is without a name."""


@dataclass(frozen=True)
class Field:
    """What is shown of one number."""

    title: str
    value: float
    """In force."""
    bounds: tuple[float, float]
    whole: bool = False
    help: str = ""
    button: str = "Set"
    mark: int = 0
    """Another one when the value in force was changed."""
    changed: str = ""
    """Who changed it last, when and how."""
    mine: bool = False
    """That change came from this browser, which needs no word about it."""
    done: str = ""
    """Id of what this browser sent last, once it was applied: what was typed has had its effect, whoever came after."""


@dataclass(frozen=True)
class Pressed:
    """One press of the button."""

    value: float
    command_id: str
    rev: int
    """The run's revision that the field was showing."""


def field(key: str, shown: Field, command_id: str, rev: int, closed: bool, press: Callable[[Pressed], None]) -> None:
    """Draw it; ``press`` is called with each press of its button whose number is within the bounds."""
    draw = st.components.v2.component(
        "hybrid_field",
        html=HTML,
        css=(STATIC / "field.css").read_text(encoding="utf-8"),
        js=(STATIC / "field.js").read_text(encoding="utf-8"),
        isolate_styles=False,
    )
    low, high = shown.bounds
    value = f"{shown.value:.0f}" if shown.whole else f"{shown.value:.6g}"
    data = {"title": shown.title, "shown": value, "low": low, "high": high, "whole": shown.whole, "help": shown.help,
            "button": shown.button, "mark": shown.mark, "changed": shown.changed, "mine": shown.mine,
            "done": shown.done, "id": command_id, "rev": rev, "closed": closed}  # fmt: skip

    def heard() -> None:
        found = said(getattr(st.session_state.get(component_key(key)), "pressed", None), shown.bounds, shown.whole)
        if found is not None:
            press(found)

    draw(key=component_key(key), data=data, on_pressed_change=heard)


def said(heard: Any, bounds: tuple[float, float], whole: bool) -> Pressed | None:
    """What a browser's word is worth: a press with a number within the bounds, or nothing."""
    if not isinstance(heard, dict):
        return None
    value, command_id, rev = heard.get("value"), heard.get("id"), heard.get("rev")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    if not bounds[0] <= value <= bounds[1] or (whole and value != round(value)):
        return None
    if not isinstance(command_id, str) or not re.fullmatch("[0-9a-f]{32}", command_id) or type(rev) is not int:
        return None
    return Pressed(float(value), command_id, rev)
