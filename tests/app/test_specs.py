"""Every figure and every view against the specification it had before: one small JSON file a figure, one a page.

The run is made by hand, so that a difference is one of a view or a figure. When it is meant, write the files anew with

    python -m pytest tests/app/test_specs.py --snapshot-update

and read ``git diff tests/app/__snapshots__``: a line is one trace, one key of the layout, one column, one bound value.
"""

import importlib
import inspect
import json
import math
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FrameType
from typing import Any

import numpy as np
import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

import app.figures
from app.feed import Connection
from app.figures import commands as commands_figure
from app.figures import lifecycle, machine, strip, whatif
from app.figures import now as now_figure
from app.figures.spec import Figure
from app.screens.page import Moment
from app.screens.registry import PAGES
from app.theme import tokens
from app.views.commands import lives
from app.views.series import Look, Series, Window
from app.views.strip import strip as strip_view
from app.wire import numbers
from tests.app.rows import Script
from tests.app.test_phases_guards import probe
from tests.app.test_phases_page import full_cycle
from tests.app.test_views import seen
from tests.app.test_whatif import asked, looked
from trainer_core.spec.commands import CommandState, Refusal, SetThreshold, Stop
from trainer_core.spec.records import (
    AlertRaised,
    CalibrationMeasured,
    Checklist,
    ChecklistItem,
    CheckpointSaved,
    HealthMeasured,
    MetricsMeasured,
    ReliabilityBin,
    SystemMeasured,
    ValidationMeasured,
)
from trainer_core.spec.severity import Severity
from trainer_core.spec.surroundings import GpuMeasured
from trainer_core.telemetry.rundir import RunStatus

MEASURED = {"grad_norm_baseline": 1.0, "grad_param_ratio": 1e-3, "grad_variance": 0.5, "micro_grad_snr": 2.0,
            "learning_rate": 1e-3, "loss_deviation": 0.5, "prediction_error": 0.02,
            "layer_grad_norms": (0.5, 0.004)}  # fmt: skip
METRICS = 3
"""Of the 24 holders for metrics of the user's own: two that are filled and the first that is not."""
FEW = 8
"""Columns of so many points are written out; of longer lists so many items."""
STATUS = RunStatus("working", "steps are coming")


class Json(SingleFileSnapshotExtension):
    """Text that is JSON, a file a test."""

    file_extension = "json"
    _write_mode = WriteMode.TEXT


class Html(Json):
    """The same for what is drawn as HTML or SVG: a line a tag."""

    file_extension = "html"


def whole_run() -> Script:
    """A run in which everything that a figure may draw has been said, good and bad."""
    script = full_cycle()
    script.say(CheckpointSaved(script.step, "step-30", 2**20, True, "every 30 steps", 0.1))
    script.steps(30, **MEASURED)
    script.roll_back(30)
    script.steps(30, **MEASURED)
    script.say(probe(script.step, 0.9))
    bins = [ReliabilityBin(0, 0, None)] * 8 + [ReliabilityBin(4, 3, 0.86), ReliabilityBin(9, 9, 0.95)]
    script.say(CalibrationMeasured(script.step, 13, 0.08, tuple(bins)))
    for loss in (0.8, 0.7, 0.9):
        script.steps(2, **MEASURED)
        script.say(ValidationMeasured(script.step, loss, 0.9, 0.1))
        gpu = GpuMeasured(0, "H", 0.5, 10 * 2**30, 20 * 2**30, 60.0, 200.0)
        script.say(SystemMeasured(script.step, 1.5, 0.25, 2**30, 5 * 2**30, 10 * 2**30, 7 * 2**30, 9 * 2**30, (gpu,)))
        script.say(MetricsMeasured(script.step, {"f1": loss / 2, "broken": math.nan}))
        script.say(HealthMeasured(script.step, {"steps_without_gain": 30.0, "grad_growth": 1.2}))
    script.say(Checklist(script.step, "during training", (ChecklistItem("stable", False, "3, healthy 0.5 to 2"),)))
    script.command(SetThreshold("confidence_threshold", 0.9), CommandState.APPLIED, before="0.85", after="0.9", rev=1)
    script.steps(2, loss=math.nan, **{**MEASURED, "layer_grad_norms": (math.nan, 0.5), "grad_norm": math.nan})
    script.say(AlertRaised(script.step, "a1", "not finite", Severity.CRITICAL, "loss", math.nan, 0.0, "loss is NaN"))
    return script.steps(3, **MEASURED)


def moment() -> Moment:
    script = whole_run()
    here = Moment(seen(script), STATUS, Connection(), "runs/whole", script.time + 1.0, first=("f1", "broken"))
    other = Moment(seen(full_cycle(kept=False)), STATUS, Connection(), "runs/other", script.time + 1.0)
    return Moment(here.snapshot, STATUS, Connection(), here.run, here.now, (other,), here.first)


HERE, LOOK = moment(), Look(Window())
FIGURES = [
    (page, name) for page in PAGES for name in PAGES[page].figures
    if not name.startswith("metric_") or int(name.removeprefix("metric_")) < METRICS
]  # fmt: skip


def rounded(value: Any) -> Any:
    """Floats to six digits, so that no rounding of a platform is a difference."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list | tuple) else value


def line(value: Any) -> str:
    return json.dumps(rounded(value), ensure_ascii=False, sort_keys=True)


def block(name: str, entries: Mapping[str, Any]) -> str:
    """An object with a line for each of its entries."""
    inside = ",\n".join(f"    {line(key)}: {line(entries[key])}" for key in entries)
    return f"  {line(name)}: {{\n{inside}\n  }}" if entries else f"  {line(name)}: {{}}"


def column(series: Series) -> dict[str, Any]:
    """A column in short: all its points when they are few, else how many, their ends, extremes and sum."""
    told: dict[str, Any] = {axis: points(values) for axis, values in series.columns.items()}
    return told if series.texts is None else told | {"text": list(series.texts)}


def points(values: Any) -> Any:
    if len(values) <= FEW:
        return numbers(np.asarray(values, dtype=np.float64))
    drawn = values[np.isfinite(values)]
    ends = {"first": values[0], "last": values[-1], "breaks": len(values) - len(drawn), "of": len(values)}
    within = {"low": drawn.min(), "high": drawn.max(), "sum": float(f"{drawn.sum():.4g}")} if len(drawn) else {}
    return {key: value if isinstance(value, int) else float(value) for key, value in (ends | within).items()}


def spread(layout: Mapping[str, Any]) -> dict[str, Any]:
    """Shapes and annotations one by one."""
    told: dict[str, Any] = {}
    for key, value in layout.items():
        many = isinstance(value, list) and value and isinstance(value[0], dict)
        told |= {f"{key} {n} of {len(value)}": inner for n, inner in enumerate(value, 1)} if many else {key: value}
    return told


def spec(figure: Figure) -> str:
    head = {"title": figure.title, "caption": figure.caption, "steps": figure.steps, "signals": list(figure.signals)}
    traces = {f"{trace['series']}{' outline' * trace.get('outline', False)}": trace for trace in figure.traces}
    assert len(traces) == len(figure.traces), "every trace has columns of its own, but for the outline of one"
    parts = [block("head", head), block("traces", traces), block("layout", spread(figure.layout))]
    return "{\n" + ",\n".join([*parts, block("columns", {k: column(v) for k, v in figure.columns.items()})]) + "\n}\n"


@pytest.mark.parametrize(("page", "name"), FIGURES, ids=[f"{page}-{name}" for page, name in FIGURES])
def test_a_figure_is_what_it_was(page: str, name: str, snapshot: SnapshotAssertion) -> None:
    told = spec(PAGES[page].figures[name](HERE, LOOK))
    json.loads(told)
    assert told == snapshot(extension_class=Json)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_what_a_page_says_is_what_it_was(page: str, snapshot: SnapshotAssertion) -> None:
    values, lists = PAGES[page].tables(HERE)
    bound, filled = {**PAGES[page].binds(HERE), **values}, {**PAGES[page].lists(HERE), **lists}
    common = strip.binds(strip_view(HERE.snapshot, STATUS, HERE.run, HERE.now)) if page == "live" else {}
    rows = {f"{name} {number} of {len(items)}": item for name, items in filled.items()
            for number, item in enumerate(items[:FEW], 1)}  # fmt: skip
    told = "{\n" + ",\n".join([block("values", common | bound), block("lists", rows)]) + "\n}\n"
    json.loads(told)
    assert told == snapshot(extension_class=Json)


def drawings() -> dict[str, Callable[[], str]]:
    """What is drawn as HTML or SVG."""
    refused = Script().start().steps(3)
    refused.command(SetThreshold("confidence_threshold", 0.9), CommandState.ACCEPTED, reason="because")
    refused.refuse(Stop(), Refusal.PRECONDITION, "a checkpoint is being saved")
    shown = strip_view(HERE.snapshot, STATUS, HERE.run, HERE.now)
    return {
        "strip": strip.html,
        "lifecycle": lifecycle.svg,
        "machine": machine.svg,
        "now": lambda: now_figure.html(shown, "light"),
        "commands": lambda: commands_figure.html(lives(seen(refused)), "light", 20),
        "whatif": lambda: whatif.html(asked(looked(), "confidence_threshold", 0.7), "dark"),
    }


@pytest.mark.parametrize("name", sorted(drawings()))
def test_a_drawing_is_what_it_was(name: str, snapshot: SnapshotAssertion) -> None:
    assert re.sub(r"(?<=>)(?=<)", "\n", drawings()[name]()) + "\n" == snapshot(extension_class=Html)


# -- nothing is left out ---------------------------------------------------------------------------------------------


def drawing_functions() -> Iterator[tuple[str, CodeType]]:
    """Every public function under ``app.figures`` that gives a Figure, an HTML or an SVG."""
    for found in pkgutil.iter_modules(app.figures.__path__):
        module = importlib.import_module(f"app.figures.{found.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            own = function.__module__ == module.__name__ and not name.startswith("_")
            if own and (function.__annotations__["return"] is Figure or name in ("html", "svg")):
                yield f"{found.name}.{name}", function.__code__


def test_every_figure_function_is_among_them() -> None:
    called: set[CodeType] = set()

    def note(frame: FrameType, event: str, _value: object) -> None:
        if event == "call":
            called.add(frame.f_code)

    sys.setprofile(note)
    try:
        for page, name in FIGURES:
            PAGES[page].figures[name](HERE, LOOK)
        for draw in drawings().values():
            draw()
    finally:
        sys.setprofile(None)
    functions = dict(drawing_functions())
    assert len(functions) > 30
    assert [name for name, code in functions.items() if code not in called] == []


def test_the_run_fills_every_figure_and_every_colour_is_of_the_theme() -> None:
    empty = []
    for page, name in FIGURES:
        figure = PAGES[page].figures[name](HERE, LOOK)
        used = set(re.findall(r'"\$([a-z_0-9]+)', json.dumps([figure.traces, figure.layout])))
        assert used <= tokens()["light"].keys() & tokens()["dark"].keys(), f"{page} {name}"
        if not any(series.length for series in figure.columns.values()):
            empty.append(f"{page} {name}")
    assert empty == [f"health metric_{METRICS - 1}"]
