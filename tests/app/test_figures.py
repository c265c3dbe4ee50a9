"""Figures and the wire: declarative, in theme tokens only, and only what changed travels."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plotly import graph_objects as go

import app
from app.figures import commands as commands_figure
from app.figures import confidence, gradient, lifecycle, loss
from app.figures.spec import UNMEASURED, Figure, decades
from app.screens.registry import PAGES
from app.store import Snapshot, Store
from app.theme import TOKENS, tokens
from app.views.commands import Life
from app.views.lifecycle import lifecycle as lifecycle_view
from app.views.series import Look, Window
from app.views.settings import present_config
from app.wire import figure_change, numbers, overlap, positions
from tests.app.rows import Script, cycled
from trainer_core.spec.commands import CommandState
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import PredictionProbed, RunState


def seen(script: Script) -> Snapshot:
    store = Store()
    store.append(script.rows)
    return store.snapshot()


@pytest.mark.parametrize(("low", "high", "every"), [(1e-2, 1e2, 1), (1e-8, 1.0, 1), (1e-9, 1.0, 2), (1e-20, 1.0, 3)])
def test_ticks_of_many_decades_do_not_cover_one_another(low: float, high: float, every: int) -> None:
    assert decades(low, high)["dtick"] == every
    assert decades(low, high)["range"] == [math.log10(low), math.log10(high)]


def test_the_confidence_chart_says_when_less_than_the_threshold_is_enough() -> None:
    captions = []
    for paying in (False, True):
        script = Script().start()
        script.enter(Phase.FULL, 10)
        script.steps(10, confidence=0.6)
        script.say(PredictionProbed(10, 1, 20, 1.0, 0.9, 0.1, 0.01, 10.0, 0.6, True, False, 0.01, paying=paying))
        snapshot = seen(script)
        captions.append(confidence.figure(confidence.view(snapshot, Look(Window()), present_config(snapshot))).caption)
    assert "is enough" not in captions[0]
    assert captions[1].endswith("above 0.49 is enough now: the run's control found that predictions pay")


def all_figures(snapshot: Snapshot, window: Window | None = None) -> list[Figure]:
    window, config = window or Window(), present_config(snapshot)
    return [
        loss.figure(loss.view(snapshot, Look(window))),
        confidence.figure(confidence.view(snapshot, Look(window), config)),
        gradient.figure(gradient.view(snapshot, Look(window), config)),
    ]


def plain(value: Any) -> Any:
    """Tokens to a colour and our own keys away, so that plotly can check the rest."""
    if isinstance(value, str):
        return re.sub(r"^\$[a-z_]+(@[\d.]+)?$", "#123456", value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        kept = {k: plain(v) for k, v in value.items() if k not in ("series", "outline", "height", "band", "yspan")}
        return {**kept, "path": "M0,0"} if "band" in value else kept
    return value


@pytest.mark.parametrize("script", [Script(), Script().start(), cycled(3)], ids=["empty", "started", "cycled"])
def test_plotly_accepts_every_trace_and_layout(script: Script) -> None:
    for figure in all_figures(seen(script)):
        go.Figure(data=plain(figure.traces), layout=plain(figure.layout))


def test_every_trace_and_band_names_a_column_that_exists() -> None:
    for figure in all_figures(seen(cycled(3))):
        assert {trace["series"] for trace in figure.traces} <= figure.columns.keys()
        assert {shape["band"] for shape in figure.layout["shapes"] if "band" in shape} <= figure.columns.keys()


def test_every_colour_is_a_token_that_both_themes_know() -> None:
    said = json.dumps([[f.traces, f.layout] for f in all_figures(seen(cycled(3)))])
    used = set(re.findall(r'"\$([a-z_]+)', said))
    assert used
    for mode in ("light", "dark"):
        assert used <= tokens()[mode].keys()
    assert TOKENS["light"].keys() == TOKENS["dark"].keys()


def test_no_hex_colour_lives_outside_the_theme() -> None:
    root = Path(app.__file__).parent
    found = [
        path.name
        for path in root.rglob("*.py")
        if path.name != "theme.py" and re.search(r"#[0-9a-fA-F]{6}\b", path.read_text())
    ]
    assert found == []


def test_nan_losses_are_marked() -> None:
    script = Script().start().steps(10)
    script.steps(3, loss=math.nan)
    drawn = loss.figure(loss.view(seen(script), Look(Window()))).columns["mark_nan"]
    assert drawn.columns["x"].tolist() == [11.0]
    assert drawn.texts == ("loss is NaN or infinite for 3 steps from 11",)


def test_a_run_without_a_step_waits_for_one_only_while_it_may_come() -> None:
    def middle(script: Script) -> str:
        (said,) = loss.figure(loss.view(seen(script), Look(Window()))).layout["annotations"]
        return str(said["text"])

    script = Script().start()
    script.say(RunState(0, "running", "training begins"))
    assert middle(script) == "waiting for the first step"
    script.say(RunState(0, "stopped", "the training loop ended"))
    assert middle(script) == "no step was taken"


def test_attempts_from_the_same_step_have_one_label() -> None:
    script = Script().start().steps(30)
    for step in (20, 10, 10, 10):
        script.roll_back(step, "not_finite (NaN or Inf)")
        script.steps(2)
    script.steps(20)
    labels = [note["text"] for note in loss.figure(loss.view(seen(script), Look(Window()))).layout["annotations"]]
    assert [label for label in labels if "attempt" in label] == ["attempt 2", "attempt 5"]


def test_what_was_rolled_back_does_not_press_the_living_line_flat() -> None:
    def drawn(script: Script, log: bool = False) -> tuple[object, str]:
        figure = loss.figure(loss.view(seen(script), Look(Window(), log=log)))
        return figure.layout["yaxis"]["autorangeoptions"], figure.caption

    script = Script().start().steps(20, loss=2.0)
    script.steps(5, loss=1e6)
    options, caption = drawn(script)
    assert options == {} and "above" not in caption, "what the run stands on is shown whole"
    script.roll_back(20)
    options, caption = drawn(script.steps(20, loss=1.5))
    assert options == {"clipmin": pytest.approx(1.47), "clipmax": pytest.approx(2.03)}
    assert "abandoned up to 1e+06, above the axis" in caption
    assert drawn(script, log=True)[0] == {}, "there it is in nobody's way"
    near = Script().start().steps(20, loss=2.0)
    near.roll_back(10)
    assert drawn(near.steps(20, loss=1.5))[0] == {}


def test_what_no_step_measured_is_not_counted_as_points() -> None:
    shown = seen(Script().start().steps(30, confidence=None, grad_norm=None))
    assert confidence.figure(confidence.view(shown, Look(Window()), present_config(shown))).caption == UNMEASURED
    assert gradient.figure(gradient.view(shown, Look(Window()), present_config(shown))).caption == UNMEASURED
    shown = seen(Script().start().steps(1))
    assert confidence.figure(confidence.view(shown, Look(Window()), present_config(shown))).caption == "1 point"


def test_a_down_sampled_chart_says_how_much_it_shows() -> None:
    figure = loss.figure(loss.view(seen(Script().start().steps(9000)), Look(Window())))
    assert re.match(r"measured [\d,]+ of 9,000 points", figure.caption)


def test_the_diagram_binds_every_value_it_is_given() -> None:
    drawn = PAGES["live"].html()
    for key in lifecycle.binds(lifecycle_view(seen(cycled(2)))):
        assert f'"{key}"' in drawn, key


def test_command_texts_cannot_carry_markup() -> None:
    life = Life("id", "<img src=x>", CommandState.REJECTED, "refused: <script>", "a<b", "<b>why</b>")
    drawn = commands_figure.html([life], "light")
    assert "<img" not in drawn and "<script" not in drawn and "<b>why" not in drawn


# ---- the wire ----


def points(added: Any) -> list[float | None]:
    """A column from what travels: its values, or the first and last of runs of steps."""
    if not isinstance(added, dict):
        return list(added)
    found: list[float | None] = []
    for at, run in enumerate(added["runs"]):
        found += [None] * (at > 0) + (list(range(run[0], run[1] + 1)) if run else [])
    return found


def replay(messages: list[dict[str, Any]]) -> dict[str, dict[str, list[float | None]]]:
    """What the browser does with column changes."""
    held: dict[str, dict[str, list[float | None]]] = {}
    for message in messages:
        for name, change in message.get("columns", {}).items():
            column = held.setdefault(name, {})
            for axis, added in change["add"].items():
                column[axis] = column.get(axis, [])[change["drop"] :][: change["keep"]] + points(added)
    return held


@pytest.mark.parametrize(
    "window", [Window(), Window(last=300), Window(span=(100.0, 400.0))], ids=["all", "last", "span"]
)
def test_increments_add_up_to_the_whole(window: Window) -> None:
    store, script, before = Store(), cycled(2), None
    messages = []
    for round_ in range(30):
        script.steps(37)
        if round_ == 20:
            script.roll_back(script.step - 100)
        store.append(script.rows)
        figure = loss.figure(loss.view(store.snapshot(), Look(window)))
        message, before = figure_change(before, figure), figure
        messages += [json.loads(json.dumps(message, allow_nan=False))] if message else []
    whole = figure_change(None, loss.figure(loss.view(store.snapshot(), Look(window))))
    assert whole is not None
    assert replay(messages) == replay([whole])


def test_a_tick_of_a_long_run_travels_in_a_few_hundred_bytes() -> None:
    store, script = Store(), Script().start().steps(50_000)
    store.append(script.rows)
    before = loss.figure(loss.view(store.snapshot(), Look(Window())))
    script.steps(5)
    store.append(script.rows)
    message = figure_change(before, loss.figure(loss.view(store.snapshot(), Look(Window()))))
    assert message is not None
    assert sum(len(json.dumps(change)) for change in message["columns"].values()) < 2000


def test_the_largest_step_there_is_travels_whole() -> None:
    assert numbers(np.array([2.0**53, 2.0**53 - 1, 1.23456789])) == [2**53, 2**53 - 1, 1.23457]


def test_nothing_travels_when_nothing_changed() -> None:
    snapshot = seen(cycled(2))
    assert all(figure_change(None, figure) for figure in all_figures(snapshot))
    pairs = zip(all_figures(snapshot), all_figures(snapshot), strict=True)
    assert [figure_change(before, figure) for before, figure in pairs] == [None, None, None]


def test_steps_that_follow_one_another_travel_as_first_and_last() -> None:
    nan = np.nan
    assert positions(np.array([5.0, 6, 7, 8])) == {"runs": [[5, 8]]}
    assert positions(np.array([5.0, 6, 7, 8, nan, 20, 21])) == {"runs": [[5, 8], [20, 21]]}
    assert positions(np.array([nan, 5, 6, 7, 8, 9, nan])) == {"runs": [[], [5, 9], []]}
    for values in (
        [5.0, 6, nan, 8],
        [5.0, 6, 8, 9, 10],
        [0.5, 1.5, 2.5],
        [7.0, 6, 5],
        [5.0, 6, 7, nan, 9.5],
        [5.0],
        [],
    ):
        assert positions(np.array(values)) == numbers(np.array(values)), values


@given(st.lists(st.one_of(st.none(), st.integers(1, 3)), max_size=40))
def test_positions_are_what_they_were(moves: list[int | None]) -> None:
    found, step = [], 0
    for move in moves:
        step += 1 if move is None or move < 3 else move
        found.append(math.nan if move is None else float(step))
    assert points(positions(np.array(found))) == numbers(np.array(found))


def test_of_an_axis_that_moved_only_its_range_travels() -> None:
    store, script = Store(), Script().start().steps(100)
    store.append(script.rows)
    before = loss.figure(loss.view(store.snapshot(), Look(Window(last=50))))
    store.append(script.steps(1).rows)
    message = figure_change(before, loss.figure(loss.view(store.snapshot(), Look(Window(last=50)))))
    assert message is not None and message["layout.xaxis.range"] == [51.0, 101.0]
    assert [key for key in message if key.startswith(("layout.xaxis", "layout.yaxis"))] == ["layout.xaxis.range"]


def test_overlap_sees_a_window_that_slid_on() -> None:
    old = {"x": np.array([1.0, 2, 3, 4]), "y": np.array([1.0, np.nan, 3, 4])}
    new = {"x": np.array([2.0, 3, 4, 5]), "y": np.array([np.nan, 3, 9, 5])}
    assert overlap(old, new) == (1, 2)


def test_losses_that_a_logarithmic_axis_does_not_have_are_counted() -> None:
    script = Script().start().steps(10, loss=-1.0).steps(5, loss=0.0).steps(5, loss=2.0)
    store = Store()
    store.append(script.rows)
    said = {log: loss.figure(loss.view(store.snapshot(), Look(Window(), log=log))).caption for log in (False, True)}
    assert "15 points at or below 0 left out" in said[True] and "left out" not in said[False]
