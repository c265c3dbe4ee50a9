"""The parts pages are laid out with, as HTML. Everything that moves is an attribute that the script fills in. Pure.

``data-bind="key"`` shows a bound value, ``data-on`` switches a class, ``data-scale`` scales a bar (0 to 1),
``data-tone`` colours by severity name, ``data-list`` is filled with items of a kind, ``data-figure`` holds a chart.
"""

import json
from collections.abc import Iterable
from html import escape

from app.figures.spec import Json
from app.replay import SPEEDS
from app.theme import phase_token
from app.views import words
from trainer_core.spec.phases import Phase

RANGES = ((200, "200"), (1000, "1k"), (10_000, "10k"), (0, "All"))
DEFAULT_RANGE = 1000


def page(*parts: str) -> str:
    """A whole page: the banner for what troubles the watching, the replay bar, then its parts."""
    speeds = "".join(f'<option value="{speed}"{" selected" * (speed == 10)}>{speed}x</option>' for speed in SPEEDS)
    return (
        '<div class="hy-banner" role="alert"></div>'
        '<div class="hy-replay" data-on="replay.on">'
        '<span class="hy-replaying"><button type="button" class="hy-play" aria-pressed="true">Hold replay</button>'
        f'<label>speed <select class="hy-speed">{speeds}</select></label>'
        '<input type="range" class="hy-at" min="0" max="1" step="0.001" value="0" aria-label="Place in the recording">'
        '<output data-bind="replay.said"></output>'
        '<button type="button" class="hy-leave">Back to the run</button></span></div>' + "".join(parts)
    )


def card(title: str, *parts: str, note: str = "", bound: str = "", css: str = "") -> str:
    """A card with a heading; ``bound`` names a value shown beside it, ``note`` is quiet text under it."""
    beside = f' <small data-bind="{bound}"></small>' if bound else ""
    under = f'<p class="hy-note">{escape(note)}</p>' if note else ""
    return f'<section class="hy-card {css}"><h3>{escape(title)}{beside}</h3>{under}{"".join(parts)}</section>'


def columns(*parts: str, kind: str = "pair") -> str:
    """Parts side by side (``pair``, ``two`` with a wider left, ``three``), one under another on narrow windows."""
    return f'<div class="hy-{kind}">{"".join(parts)}</div>'


def heading(text: str, note: str = "") -> str:
    """A heading over a group of cards."""
    return f'<h2 class="hy-heading">{escape(text)} <small>{escape(note)}</small></h2>'


def chart(name: str, legend: str = "", size: str = "") -> str:
    """The holder of a figure; ``size`` is one of "", "small", "tall"."""
    return (
        f'<section class="hy-card hy-chart" data-figure="{name}"><header><h3></h3><small></small>{legend}'
        '<a class="hy-csv" hidden download>CSV</a></header>'
        f'<div class="hy-plot hy-plot-{size or name}"></div></section>'
    )


def bound(key: str, tag: str = "span", css: str = "") -> str:
    """A bound value."""
    return f'<{tag} class="{css}" data-bind="{key}"></{tag}>'


def stroke(token: str, dash: str = "solid") -> str:
    """A piece of a line, for a legend."""
    return f'<i class="hy-line" style="border-top: 2px {dash} var(--hy-{token})"></i>'


def key(mark: str, what: str, *series: str) -> str:
    """An entry of a chart's legend; a press hides its ``series`` and shows them again."""
    names = escape(json.dumps(series))
    return (
        f'<button type="button" class="hy-key" aria-pressed="true" title="Hide or show" data-eye="{names}">'
        f"{mark}{escape(what)}</button>"
    )


def legend(*keys: str) -> str:
    """The entries of a legend, beside a chart's title."""
    return f'<div class="hy-legend">{"".join(keys)}</div>'


def remedy(name: str, css: str = "") -> str:
    """The button of a remedy: it opens Control with the remedy filled in, and sends nothing."""
    return f'<button type="button" class="{css}" data-press="control" data-which="{name}">{words.REMEDY}</button>'


def press_remedy(name: str) -> Json:
    """The same button as an item of a list."""
    title = "Opens Control with it filled in; nothing is sent before you confirm it there"
    return {"what": "control", "which": name, "label": words.REMEDY, "title": title}


def facts(*pairs: tuple[str, str]) -> str:
    """Labelled values: (label, key of the bound value)."""
    cells = "".join(
        f'<div class="hy-cell"><span>{escape(label)}</span><b data-bind="{key}"></b></div>' for label, key in pairs
    )
    return f'<div class="hy-cells">{cells}</div>'


def listing(name: str, empty: str, kind: str = "feed", css: str = "") -> str:
    """A list filled by name. Kinds and the keys of their items:

    ``feed``: severity, icon, message, detail, step, open, optionally press (its buttons) · ``checks``: met
    (true, false, null), text, detail (and flash: any value that changes when the line should light up) · ``bars``:
    label, share (0 to 1), value, and optionally tone or phase · ``lines``: text and optionally tone.
    """
    return (
        f'<ul class="hy-list hy-{kind} {css}" data-list="{name}" data-kind="{kind}" data-empty="{escape(empty)}"></ul>'
    )


def table(head: Iterable[str], rows: Iterable[Iterable[str]], css: str = "") -> str:
    """A table whose cells are HTML (use ``bound`` for what moves, ``text`` for what does not)."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return _scrolled(f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody>", css)


def live_table(name: str, head: Iterable[str], empty: str) -> str:
    """A table whose rows come as a list: items are {"cells": [text, ...], "tone": severity name or ""}."""
    names = list(head)
    top = "".join(f'<th scope="col">{escape(text)}</th>' for text in names)
    body = f'data-list="{name}" data-kind="rows" data-empty="{escape(empty)}" data-width="{len(names)}"'
    return _scrolled(f"<thead><tr>{top}</tr></thead><tbody {body}></tbody>")


def _scrolled(inside: str, css: str = "") -> str:
    return f'<div class="hy-scroll"><table class="hy-table {css}">{inside}</table></div>'


def text(words: str) -> str:
    """Words that are no markup."""
    return escape(words)


def chip(phase: Phase) -> str:
    """The letter badge of a phase."""
    token = phase_token(phase)
    return f'<i class="hy-chip" style="background: var(--hy-{token}); --ink: var(--hy-on_{token})">{phase.letter}</i>'


LOOK = (
    '<label class="hy-smooth">smoothing <input type="range" min="0" max="0.99" step="0.01" value="0"'
    ' aria-label="Smoothing"><output>0</output></label>'
    '<button type="button" class="hy-log" aria-pressed="false">log loss</button>'
)
"""How lines are drawn: for every bar of tools."""
AXES = (("step", "step"), ("relative", "time"), ("wall", "clock"))


def toolbar() -> str:
    """Which steps the charts show, and how. The same on every page that has charts over steps."""
    ranges = "".join(_pressable("last", str(last), label, last == DEFAULT_RANGE) for last, label in RANGES)
    axes = "".join(_pressable("x", name, label, name == "step") for name, label in AXES)
    return (
        '<div class="hy-tools" role="toolbar" aria-label="Charts">'
        f'<span>Last steps</span><div class="hy-group" role="group" aria-label="Last steps">{ranges}</div>'
        f'<span>x axis</span><div class="hy-group" role="group" aria-label="x axis">{axes}</div>'
        f"{LOOK}"
        '<button type="button" class="hy-log-x" aria-pressed="false">log x</button>'
        '<span class="hy-follow">following the newest step</span>'
        '<button type="button" class="hy-refollow" hidden>Follow again</button>'
        '<button type="button" class="hy-keys" aria-expanded="false" title="Keys">?</button>'
        f'<div class="hy-help" role="note" hidden>{_KEYS}</div></div>'
    )


_KEYS = "".join(
    f"<span><kbd>{key}</kbd> {escape(what)}</span>"
    for key, what in (
        ("drag", "zoom, all charts together"),
        ("double-click", "follow again"),
        ("f", "follow the newest step"),
        ("l", "log loss"),
        ("x", "next x axis"),
        ("s", "smoother"),
        ("S", "less smooth"),
        ("a", "acknowledge the newest alert"),
        ("?", "these keys"),
    )
)


def _pressable(name: str, value: str, label: str, pressed: bool) -> str:
    return f'<button type="button" data-{name}="{value}" aria-pressed="{str(pressed).lower()}">{label}</button>'
