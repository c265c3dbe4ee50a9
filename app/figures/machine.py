"""The state machine as SVG, generated from the transition table and drawn once; values are bound by name. Pure.

Phases stand in a column. Rows that lead on are written beside the arrow down, rows that lead back beside the lanes on
the right, rollbacks at the foot of the lane on the left.
"""

from dataclasses import dataclass
from html import escape

from app.figures.lifecycle import Binds
from app.theme import phase_token
from app.views import words
from app.views.lifecycle import Lifecycle
from app.views.phases_machine import OPERATOR, Machine
from trainer_core.spec.phases import TRAITS, Phase
from trainer_core.spec.transitions import TRANSITIONS, Effect, Transition, guard_name

PHASES = tuple(Phase)
WIDTH = 926
NODE_X, NODE_W, NODE_H = 40, 172, 78
MIDDLE = NODE_X + NODE_W // 2
FORWARD_X = MIDDLE + 18
LANE_X, LANE_STEP = 532, 18
BACK_X = 574
RESCUE_X = NODE_X - 26
LINE_H, PAD, TOP = 19, 14, 14
NUMBER_X = 144
"""From the beginning of a guard's line to its numbers."""
MARKS = {True: "✓", False: "○", None: "–"}
EFFECTS = {
    Effect.NONE: "",
    Effect.SNAPSHOT: "keeps the weights to come back to",
    Effect.UNDO: "undone",
    Effect.JUDGE: "judged: kept or undone",
    Effect.SETTLE: "judged: kept or undone",
    Effect.ROLLBACK: "back to the last good checkpoint",
}


@dataclass(frozen=True)
class Edge:
    """All rows between two phases: (index into TRANSITIONS, row)."""

    source: Phase
    target: Phase
    rows: tuple[tuple[int, Transition], ...]

    @property
    def forward(self) -> bool:
        """Whether it leads on in the cycle."""
        return PHASES.index(self.target) > PHASES.index(self.source)

    @property
    def lines(self) -> int:
        """How many lines its text takes, its heading not counted."""
        return sum(_lines(row) for _, row in self.rows)


def edges() -> tuple[Edge, ...]:
    """The edges that are not rollbacks, in the order of the table."""
    pairs = dict.fromkeys((row.source, row.target) for row in TRANSITIONS if row.effect is not Effect.ROLLBACK)
    return tuple(
        Edge(
            *pair,
            tuple(
                (i, row)
                for i, row in enumerate(TRANSITIONS)
                if (row.source, row.target) == pair and row.effect is not Effect.ROLLBACK
            ),
        )
        for pair in pairs
    )


def rescues() -> dict[str, tuple[tuple[int, Transition], ...]]:
    """Rollback rows by cause."""
    causes = dict.fromkeys(row.cause for row in TRANSITIONS if row.effect is Effect.ROLLBACK)
    return {
        cause: tuple(
            (i, row) for i, row in enumerate(TRANSITIONS) if row.cause == cause and row.effect is Effect.ROLLBACK
        )
        for cause in causes
    }


def _lines(row: Transition) -> int:
    return 1 if row.cause == OPERATOR or len(row.guards) == 1 else 1 + len(row.guards)


def _tops() -> dict[Phase, int]:
    """The y of each phase's box: room below it for the longer of the texts beside the arrows."""
    tops, y = {}, TOP
    for phase in PHASES:
        tops[phase] = y
        below = [edge.lines for edge in edges() if edge.forward and edge.source is phase]
        beside = [edge.lines + 1 for edge in edges() if not edge.forward and _upper(edge) is phase]
        y += NODE_H + max([0, *below, *beside]) * LINE_H + 2 * PAD
    return tops


def _upper(edge: Edge) -> Phase:
    """The phase under whose box the text of an edge that leads back begins: the one before its source."""
    return PHASES[PHASES.index(edge.source) - 1]


TOPS = _tops()
FOOT = TOPS[PHASES[-1]] + NODE_H + 2 * PAD + LINE_H
"""The y of the first line under the boxes: what a rollback is and what it waits for."""
HEIGHT = FOOT + len(rescues()) * LINE_H + PAD


def svg() -> str:
    """The diagram without values."""
    arrow = (
        '<marker id="hy-machine-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="10" markerHeight="10" '
        'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0 L8 4 L0 8 z" class="hy-head"/></marker>'
    )
    back = [edge for edge in edges() if not edge.forward]
    parts = [
        _rescue(),
        *(_forward(edge) for edge in edges() if edge.forward),
        *(_back(edge, lane) for lane, edge in enumerate(reversed(back))),
        *(_node(phase) for phase in PHASES),
    ]
    return (
        f'<svg class="hy-life hy-machine" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="State machine with every guard"><defs>{arrow}</defs>{"".join(parts)}</svg>'
    )


def binds(found: Machine, life: Lifecycle) -> Binds:
    """The values of the diagram."""
    values: Binds = {}
    for phase in PHASES:
        node, key = life.nodes[phase], f"pm.{phase.value}"
        values |= {
            f"{key}.on": node.active,
            f"{key}.progress": node.progress,
            f"{key}.tally": node.tally,
            f"{key}.entered": node.entered,
        }
    taken = found.taken
    for edge in edges():
        key = _edge_key(edge.source, edge.target)
        on = taken is not None and (taken.source, taken.target) == (edge.source, edge.target)
        count = found.counts.get((edge.source, edge.target), 0)
        values |= {f"{key}.count": f"{words.count(count)}×" if count else "", f"{key}.on": on}
        values[f"{key}.at"] = taken.step if taken is not None and on else -1
        for index, row in edge.rows:
            values[f"pm.row{index}.on"] = taken is not None and taken.row == index
            values |= _guard_values(found, row, index) if row.cause != OPERATOR else {}
    for rows in rescues().values():
        values |= _rescue_values(found, rows)
    return values


def _guard_values(found: Machine, row: Transition, index: int) -> Binds:
    values: Binds = {}
    answers = found.standings[row.source].answers
    for guard in row.guards:
        answer = answers.get(guard_name(guard))
        key = f"pm.row{index}.{guard_name(guard)}"
        values |= {
            key: answer is not None and answer.holds,
            f"{key}.mark": MARKS[answer.holds if answer else None],
            f"{key}.detail": answer.detail if answer else "",
        }
    return values


def _rescue_values(found: Machine, rows: tuple[tuple[int, Transition], ...]) -> Binds:
    """A rollback is watched for in the present phase only; it is written once for all phases."""
    row = next((row for _, row in rows if row.source is found.active), None)
    if row is not None:
        return _guard_values(found, row, rows[0][0])
    key = _key(*rows[0])
    return {key: False, f"{key}.mark": MARKS[None], f"{key}.detail": "not watched in this phase"}


def _key(index: int, row: Transition) -> str:
    return f"pm.row{index}.{guard_name(row.guards[0])}"


def _edge_key(source: Phase, target: Phase) -> str:
    return f"pm.{source.value}-{target.value}"


def _node(phase: Phase) -> str:
    key = f"pm.{phase.value}"
    return (
        f'<g class="hy-node" data-on="{key}.on" data-flash="{key}.entered" data-phase="{phase.value}" '
        f'style="--hue: var(--hy-{phase_token(phase)})" transform="translate({NODE_X} {TOPS[phase]})">'
        f"<title>{escape(TRAITS[phase].purpose)}</title>"
        f'<rect class="hy-box" width="{NODE_W}" height="{NODE_H}" rx="10"/>'
        '<circle class="hy-badge" cx="22" cy="22" r="12"/>'
        f'<text class="hy-letter" x="22" y="26.5">{phase.letter}</text>'
        f'<text class="hy-name" x="42" y="27">{phase.value}</text>'
        f'<text class="hy-progress" x="12" y="49" data-bind="{key}.progress"></text>'
        f'<text class="hy-tally" x="12" y="67" data-bind="{key}.tally"></text></g>'
    )


def _forward(edge: Edge) -> str:
    top, bottom = TOPS[edge.source] + NODE_H, TOPS[edge.target]
    text = _rows(edge, FORWARD_X, top + PAD + 4)
    return (
        f"{_arrow(edge, f'M{MIDDLE} {top} V{bottom - 4}')}"
        f'<text class="hy-count" x="{MIDDLE - 9}" y="{top + PAD + 5}" text-anchor="end" '
        f'data-bind="{_edge_key(edge.source, edge.target)}.count"></text>{text}'
    )


def _back(edge: Edge, lane: int) -> str:
    """Out of the right side of the source, up a lane, into the right side of the target."""
    x, right = LANE_X + lane * LANE_STEP, NODE_X + NODE_W
    bottom, top = TOPS[edge.source] + 22, TOPS[edge.target] + 20 + 20 * lane
    y = TOPS[_upper(edge)] + NODE_H + PAD
    key = _edge_key(edge.source, edge.target)
    head = (
        f'<text class="hy-from" x="{BACK_X}" y="{y}">{edge.source.value} back to {edge.target.value} '
        f'<tspan class="hy-count" dx="6" data-bind="{key}.count"></tspan></text>'
    )
    return f"{_arrow(edge, f'M{right} {bottom} H{x} V{top} H{right + 4}')}{head}{_rows(edge, BACK_X, y + LINE_H)}"


def _arrow(edge: Edge, path: str) -> str:
    key = _edge_key(edge.source, edge.target)
    return (
        f'<g class="hy-edge" data-on="{key}.on" data-flash="{key}.at"><path d="{path}" '
        'marker-end="url(#hy-machine-arrow)"/></g>'
    )


def _rows(edge: Edge, x: int, y: int) -> str:
    lines = []
    for index, row in edge.rows:
        lines.append(_row(index, row, x, y))
        y += _lines(row) * LINE_H
    return f'<g class="hy-rows" data-on="pm.{edge.source.value}.on">{"".join(lines)}</g>'


def _row(index: int, row: Transition, x: int, y: int) -> str:
    effect = EFFECTS[row.effect]
    hint = f"<title>{escape(f'{row.cause}: {effect}' if effect else row.cause)}</title>"
    if row.cause == OPERATOR:
        others = " and ".join(["asked for", *(guard_name(g) for g in row.guards[1:])])
        inside = f'<text class="hy-quiet" x="{x}" y="{y}">or by command: {escape(others)}</text>'
    elif len(row.guards) == 1:
        inside = _guard(index, guard_name(row.guards[0]), row.cause, x, y)
    else:
        inside = f'<text class="hy-row" x="{x}" y="{y}">{escape(row.cause)}: all of</text>'
        for n, guard in enumerate(row.guards, 1):
            inside += _guard(index, guard_name(guard), words_of(guard_name(guard)), x, y + n * LINE_H, indent=10)
        inside += f'<path class="hy-bracket" d="M{x + 2} {y + 6} V{y + len(row.guards) * LINE_H + 2}"/>'
    return f'<g class="hy-lit" data-on="pm.row{index}.on">{hint}{inside}</g>'


def words_of(name: str) -> str:
    """A guard's name as words."""
    return name.replace("_", " ")


def _guard(index: int, name: str, label: str, x: int, y: int, indent: int = 0) -> str:
    key = f"pm.row{index}.{name}"
    return (
        f'<g class="hy-guard" data-on="{key}">'
        f'<text class="hy-mark" x="{x + indent}" y="{y}" data-bind="{key}.mark"></text>'
        f'<text class="hy-what" x="{x + indent + 18}" y="{y}">{escape(label)}</text>'
        f'<text class="hy-number" x="{x + NUMBER_X}" y="{y}" data-bind="{key}.detail"></text></g>'
    )


def _rescue() -> str:
    """The lane on the left: out of every phase that a rollback may leave, into FULL; at its foot what it waits for."""
    found = rescues()
    sources = dict.fromkeys(row.source for rows in found.values() for _, row in rows)
    target = next(row.target for rows in found.values() for _, row in rows)
    paths = [
        f'<path d="M{NODE_X} {TOPS[source] + 42} H{RESCUE_X} V{TOPS[target] + 22} H{NODE_X - 4}" '
        'marker-end="url(#hy-machine-arrow)"/>'
        for source in sources
    ]
    paths.append(f'<path d="M{RESCUE_X} {FOOT - LINE_H} V{TOPS[PHASES[-1]] + 42}"/>')
    text = f'<text class="hy-from" x="4" y="{FOOT}">Roll back to the last good checkpoint</text>'
    for n, (cause, rows) in enumerate(found.items(), 1):
        index, row = rows[0]
        text += _guard(index, guard_name(row.guards[0]), cause, 4, FOOT + n * LINE_H)
    return f'<g class="hy-edge hy-rescue">{"".join(paths)}</g><g class="hy-rows on">{text}</g>'
