"""A slider and the exact number beside it, as one component. Knows no run.

Both are the browser's own and keep step there; the server is told where they stand, and moves them only when the
value in force is another one. Two Streamlit widgets that set each other lose presses: a browser sends the state of all
widgets with each request, also of one that the server has set meanwhile.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from app.parts import component_key

STATIC = Path(__file__).parent / "static"
HTML = (
    '<div class="hy-setting"><label><span class="hy-title">Setting</span> <output></output>'
    '<input type="range" min="0" step="1"></label>'
    '<label class="hy-exactly"><span>Exactly</span> <input type="number" step="any"></label></div>'
)
"""Its script writes the words of the setting; until then, too, nothing is without a name."""


def slider(
    key: str, title: str, places: Sequence[float], value: float, bounds: tuple[float, float], whole: bool, help: str
) -> float:
    """Draw it; the value that it stands at: one of ``places``, or a number typed within ``bounds``.

    ``value`` is the value in force. What the browser said beside another value in force counts no more.
    """
    draw = st.components.v2.component(
        "hybrid_slider",
        html=HTML,
        css=(STATIC / "slider.css").read_text(encoding="utf-8"),
        js=(STATIC / "slider.js").read_text(encoding="utf-8"),
        isolate_styles=False,
    )
    low, high = bounds
    data = {"title": title, "help": help, "places": list(places), "base": value, "low": low, "high": high,
            "whole": whole, "value": standing(key, value, bounds, whole)}  # fmt: skip
    draw(key=component_key(key), data=data, on_wanted_change=_heard)
    return standing(key, value, bounds, whole)


def standing(key: str, value: float, bounds: tuple[float, float], whole: bool) -> float:
    """Where the slider of this key stands, by what the browser has said last; else at ``value``, the value in force."""
    return said(getattr(st.session_state.get(component_key(key)), "wanted", None), value, bounds, whole)


def said(wanted: Any, value: float, bounds: tuple[float, float], whole: bool) -> float:
    """What a browser's word is worth: its number where it is one, within the bounds, and said of the value in force."""
    if not isinstance(wanted, dict) or wanted.get("base") != value:
        return value
    number = wanted.get("value")
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        return value
    within = min(max(float(number), bounds[0]), bounds[1])
    return float(round(within)) if whole else within


def _heard() -> None:
    """Nothing to do: the fragment is run again and reads it."""
