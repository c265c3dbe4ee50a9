"""The lifecycle diagram as SVG, drawn once; what changes are the values bound to it by name. Pure.

The browser understands four bindings: ``data-bind`` (text), ``data-on`` (class ``on``), ``data-scale`` (width from 0 to
1) and ``data-flash`` (animate when the value changes: a phase that came and went between two looks is seen too).
"""

from dataclasses import dataclass

from app.theme import phase_token
from app.views.lifecycle import EDGES, Lifecycle
from trainer_core.spec.phases import Phase

NODE_W, NODE_H = 188, 92


@dataclass(frozen=True)
class Layout:
    """Where everything is."""

    name: str
    """Class of the drawing; the style sheet shows the one that fits."""
    size: tuple[int, int]
    place: dict[Phase, tuple[int, int]]
    paths: dict[tuple[Phase, Phase], tuple[str, tuple[int, int]]]
    """SVG path and the place of the count of each edge."""


WIDE = Layout(
    "hy-wide",
    (720, 272),
    {Phase.WARMUP: (4, 40), Phase.FULL: (266, 40), Phase.PREDICT: (528, 40), Phase.CORRECT: (397, 174)},
    {
        (Phase.WARMUP, Phase.FULL): ("M192 86 H262", (227, 78)),
        (Phase.FULL, Phase.PREDICT): ("M454 86 H524", (489, 78)),
        (Phase.PREDICT, Phase.CORRECT): ("M622 132 V220 H589", (640, 190)),
        (Phase.PREDICT, Phase.FULL): ("M622 40 C622 4 360 4 360 36", (491, 26)),
        (Phase.CORRECT, Phase.FULL): ("M397 220 H360 V136", (342, 190)),
    },
)
NARROW = Layout(
    "hy-narrow",
    (432, 290),
    {Phase.WARMUP: (4, 10), Phase.FULL: (236, 10), Phase.PREDICT: (236, 188), Phase.CORRECT: (4, 188)},
    {
        (Phase.WARMUP, Phase.FULL): ("M192 56 H232", (212, 48)),
        (Phase.FULL, Phase.PREDICT): ("M310 102 V184", (332, 168)),
        (Phase.PREDICT, Phase.CORRECT): ("M236 234 H196", (214, 226)),
        (Phase.PREDICT, Phase.FULL): ("M386 188 V106", (406, 132)),
        (Phase.CORRECT, Phase.FULL): ("M98 188 V145 H270 V106", (184, 138)),
    },
)
"""For a phone: the cycle is a square."""

Binds = dict[str, str | float | bool]


def svg() -> str:
    """The diagram without values, once for each layout."""
    return _drawn(WIDE) + _drawn(NARROW)


def _drawn(layout: Layout) -> str:
    edges = "".join(_edge(*edge, layout) for edge in EDGES)
    nodes = "".join(_node(phase, layout) for phase in Phase)
    arrow = (
        f'<marker id="{layout.name}-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="10" '
        'markerHeight="10" markerUnits="userSpaceOnUse" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" class="hy-head"/></marker>'
    )
    width, height = layout.size
    return (
        f'<svg class="hy-life {layout.name}" viewBox="0 0 {width} {height}" role="img" aria-label="Training lifecycle">'
        f"<defs>{arrow}</defs>{edges}{nodes}</svg>"
    )


def binds(life: Lifecycle) -> Binds:
    """The values of the diagram."""
    values: Binds = {"life.cause": life.cause, "life.verdicts": life.verdicts}
    for phase, node in life.nodes.items():
        key = f"life.{phase.value}"
        values |= {
            f"{key}.on": node.active,
            f"{key}.progress": node.progress,
            f"{key}.left": node.left,
            f"{key}.done": round(node.done, 3),
            f"{key}.tally": node.tally,
            f"{key}.entered": node.entered,
        }
    for (left, entered), count in life.entered.items():
        key = f"edge.{left.value}.{entered.value}"
        taken = life.flash is not None and life.flash[:2] == (left, entered)
        values[key] = f"{count:,}×" if count else ""
        values[f"{key}.at"] = life.flash[2] if life.flash is not None and taken else -1
        values[f"{key}.on"] = taken
    return values


def _node(phase: Phase, layout: Layout) -> str:
    x, y = layout.place[phase]
    key = f"life.{phase.value}"
    return (
        f'<g class="hy-node" data-on="{key}.on" data-flash="{key}.entered" data-phase="{phase.value}" '
        f'style="--hue: var(--hy-{phase_token(phase)})" transform="translate({x} {y})">'
        f'<rect class="hy-box" width="{NODE_W}" height="{NODE_H}" rx="10"/>'
        f'<circle class="hy-badge" cx="22" cy="22" r="12"/>'
        f'<text class="hy-letter" x="22" y="26.5">{phase.letter}</text>'
        f'<text class="hy-name" x="42" y="27">{phase.value}</text>'
        f'<text class="hy-left" x="{NODE_W - 12}" y="27" data-bind="{key}.left"></text>'
        f'<text class="hy-progress" x="12" y="53" data-bind="{key}.progress"></text>'
        f'<text class="hy-tally" x="12" y="72" data-bind="{key}.tally"></text>'
        f'<rect class="hy-rail" x="12" y="80" width="{NODE_W - 24}" height="4" rx="2"/>'
        f'<rect class="hy-fill" x="12" y="80" width="{NODE_W - 24}" height="4" rx="2" data-scale="{key}.done"/></g>'
    )


def _edge(left: Phase, entered: Phase, layout: Layout) -> str:
    path, (x, y) = layout.paths[left, entered]
    key = f"edge.{left.value}.{entered.value}"
    return (
        f'<g class="hy-edge" data-on="{key}.on" data-flash="{key}.at">'
        f'<path d="{path}" marker-end="url(#{layout.name}-arrow)"/>'
        f'<text x="{x}" y="{y}" data-bind="{key}"></text></g>'
    )
