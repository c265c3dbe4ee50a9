"""What travels to a browser: only what changed since the last message. Knows no socket and no run."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from app.figures.lifecycle import Binds
from app.figures.spec import Figure, Json
from app.table import F64
from app.views.series import Series

MOST_WHOLE = 2**53
"""Up to here, which is as far as steps are numbered, a float holds every whole number."""


class Message(dict[str, Any]):
    """One message, whose text is made once however many browsers it goes to."""

    @cached_property
    def text(self) -> str:
        """As JSON. Raises ValueError for what JSON has no number for."""
        return json.dumps(self, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, eq=False)
class Glance:
    """The bound values and the lists of a page at one moment; never written again."""

    binds: Binds = field(default_factory=dict)
    lists: Mapping[str, list[Json]] = field(default_factory=dict)


def glance_changes(old: Glance, new: Glance) -> list[Message]:
    """The values that changed, and whole lists in which anything changed."""
    changed = {key: value for key, value in new.binds.items() if old.binds.get(key) != value}
    messages = [Message(t="bind", set=changed)] if changed else []
    lists = new.lists.items()
    return messages + [
        Message(t="list", name=name, items=items) for name, items in lists if old.lists.get(name) != items
    ]


def figure_change(old: Figure | None, new: Figure) -> Message | None:
    """The parts of a figure that changed: head (traces, layout, caption) and column increments. None: nothing did."""
    message = Message(t="figure", name=new.name)
    message.update(_parts(_head(old) if old is not None else {}, _head(new)))
    columns = {}
    for name, series in new.columns.items():
        change = _column_change(old.columns.get(name) if old is not None else None, series)
        if change is not None:
            columns[name] = change
    if columns:
        message["columns"] = columns
    return message if len(message) > 2 else None


def _head(figure: Figure) -> Json:
    head = {"traces": figure.traces, "title": figure.title, "caption": figure.caption, "steps": figure.steps}
    return head | {"signals": list(figure.signals)} | {f"layout.{key}": value for key, value in figure.layout.items()}


def _parts(held: Json, head: Json) -> Iterator[tuple[str, Any]]:
    """What changed; of a part of the layout that has the keys it had, only those keys: ``layout.xaxis.range``."""
    for key, value in head.items():
        before = held.get(key)
        if isinstance(value, dict) and isinstance(before, dict) and before.keys() == value.keys():
            yield from ((f"{key}.{part}", item) for part, item in value.items() if before[part] != item)
        elif key not in held or before != value:
            yield key, value


def _column_change(old: Series | None, new: Series) -> Json | None:
    """``drop`` from the front, ``keep`` of what is left, then ``add``; None when nothing changed."""
    drop, keep = overlap(old.columns, new.columns) if old is not None else (0, 0)
    if old is not None and old.texts == new.texts and drop == 0 and keep == new.length == old.length:
        return None
    added = {
        name: positions(values[keep:]) if name == "x" else numbers(values[keep:])
        for name, values in new.columns.items()
    }
    change: Json = {"drop": drop, "keep": keep, "add": added}
    return change if new.texts is None else {**change, "text": list(new.texts)}


def overlap(old: dict[str, F64], new: dict[str, F64]) -> tuple[int, int]:
    """How many points to drop from the front of ``old`` and keep after them so that they are the first of ``new``."""
    old_x, new_x = old["x"], new["x"]
    if not len(old_x) or not len(new_x) or old.keys() != new.keys():
        return 0, 0
    found = np.flatnonzero(old_x == new_x[0])
    drop = int(found[0]) if len(found) else 0
    length = min(len(old_x) - drop, len(new_x))
    same = np.ones(length, dtype=np.bool_)
    for name, values in new.items():
        left, right = old[name][drop : drop + length], values[:length]
        same &= (left == right) | (np.isnan(left) & np.isnan(right))
    keep = length if same.all() else int(np.argmin(same))
    return (drop, keep) if keep else (0, 0)


def positions(values: F64) -> list[float | None] | Json:
    """As ``numbers``; of steps that follow one another, with few breaks, the first and last of each run."""
    breaks = np.flatnonzero(np.isnan(values))
    apart = np.diff(values)
    whole = (apart == 1.0) | np.isnan(apart)
    if 2 * len(breaks) + 2 >= len(values) or not whole.all() or (values % 1.0 > 0.0).any():
        return numbers(values)
    starts, ends = [0, *(breaks + 1).tolist()], [*breaks.tolist(), len(values)]
    pairs = zip(starts, ends, strict=True)
    return {"runs": [[int(values[start]), int(values[end - 1])] if end > start else [] for start, end in pairs]}


def numbers(values: F64) -> list[float | None]:
    """JSON numbers of six digits (steps whole); None for what cannot be drawn."""
    return [_number(value) for value in values.tolist()]


def _number(value: float) -> float | None:
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) <= MOST_WHOLE else float(f"{value:.6g}")
