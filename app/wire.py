"""What travels to a browser: only what changed since the last message. Knows no socket and no run."""

import math
from dataclasses import dataclass, field

import numpy as np

from app.figures.lifecycle import Binds
from app.figures.spec import Figure, Json
from app.table import F64
from app.views.series import Series


@dataclass
class Sent:
    """What one browser already holds."""

    binds: Binds = field(default_factory=dict)
    lists: dict[str, list[Json]] = field(default_factory=dict)
    columns: dict[str, dict[str, F64]] = field(default_factory=dict)
    texts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    heads: dict[str, Json] = field(default_factory=dict)

    def binds_message(self, binds: Binds) -> Json | None:
        """The changed values, or None."""
        changed = {key: value for key, value in binds.items() if self.binds.get(key) != value}
        self.binds |= changed
        return {"t": "bind", "set": changed} if changed else None

    def list_message(self, name: str, items: list[Json]) -> Json | None:
        """A whole list when anything in it changed."""
        if self.lists.get(name) == items:
            return None
        self.lists[name] = items
        return {"t": "list", "name": name, "items": items}

    def figure_message(self, figure: Figure) -> Json | None:
        """The changed parts of a figure: head (traces, layout, caption) and column increments."""
        message: Json = {"t": "figure", "name": figure.name}
        head = {"traces": figure.traces, "title": figure.title, "caption": figure.caption, "steps": figure.steps}
        head |= {"signals": list(figure.signals)}
        head |= {f"layout.{key}": value for key, value in figure.layout.items()}
        held = self.heads.get(figure.name, {})
        message |= {key: value for key, value in head.items() if held.get(key) != value}
        self.heads[figure.name] = head
        columns = {}
        for name, series in figure.columns.items():
            change = self._column_change(f"{figure.name}/{name}", series)
            if change is not None:
                columns[name] = change
        if columns:
            message["columns"] = columns
        return message if len(message) > 2 else None

    def _column_change(self, key: str, series: Series) -> Json | None:
        """``drop`` from the front, ``keep`` of what is left, then ``add``; None when nothing changed."""
        held = self.columns.get(key)
        self.columns[key] = series.columns
        texts_same = self.texts.get(key) == series.texts
        if series.texts is not None:
            self.texts[key] = series.texts
        drop, keep = overlap(held, series.columns) if held is not None else (0, 0)
        was = len(next(iter(held.values()))) if held is not None else 0
        if held is not None and texts_same and drop == 0 and keep == series.length == was:
            return None
        added = {name: numbers(values[keep:]) for name, values in series.columns.items()}
        change: Json = {"drop": drop, "keep": keep, "add": added}
        return change if series.texts is None else {**change, "text": list(series.texts)}


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


def numbers(values: F64) -> list[float | None]:
    """JSON numbers of six digits (steps whole); None for what cannot be drawn."""
    return [_number(value) for value in values.tolist()]


def _number(value: float) -> float | None:
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 1e15 else float(f"{value:.6g}")
