"""Runs of a Monitor on the dashboard: no phases, no commands that need them, and every knob a form of its own."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

import app
from app.board import Board
from app.feed import Connection, Feed
from app.figures import compare as figures
from app.figures import loss
from app.figures import now as now_figure
from app.figures import strip as strip_figure
from app.parts import component_key
from app.screen import Ask, Screen
from app.screens.page import Moment
from app.screens.registry import PAGES
from app.views import words
from app.views.bands import bands
from app.views.commands import lives
from app.views.compare import compared, differences, row
from app.views.effects import effect
from app.views.knobs import knobs
from app.views.lifecycle import OWN_LOOP, lifecycle
from app.views.own_values import own_values
from app.views.remedy import plan
from app.views.series import Look, Window, line
from app.views.settings import live_settings
from app.views.strip import strip
from app.views.troubles import troubles
from app.watching import RUNS_DIR, watch
from tests.app.conftest import told, until
from tests.app.rows import Script, cycled
from tests.app.test_views import Status, seen
from trainer_core import Monitor
from trainer_core.engine.own_commands import supported
from trainer_core.engine.own_loop import OwnLoop
from trainer_core.spec.commands import CommandState, SetKnob
from trainer_core.spec.config import Config
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import KnobDeclared, MetricsMeasured, Row, RunStarted, RunState, ValidationMeasured
from trainer_core.spec.remedies import REMEDIES
from trainer_core.telemetry.rundir import RunStatus

MAIN = Path(app.__file__).with_name("streamlit_app.py")
DROPOUT = KnobDeclared(0, "dropout", 0.0, 0.5, 0.1, "share", "Dropout of the head.")


def own_loop(steps: int = 30) -> Script:
    """What a Monitor writes."""
    script = Script(phase=Phase.FULL).start()
    (row,) = script.rows
    assert isinstance(row.record, RunStarted)
    script.rows = [Row(1, row.time, 1, msgspec.structs.replace(row.record, own_loop=True, task="own loop"))]
    script.say(DROPOUT)
    script.steps(steps, confidence=None)
    script.say(MetricsMeasured(script.step, {"accuracy": 0.5}))
    return script


def test_a_knob_stands_where_its_newest_command_put_it_until_it_is_declared_again() -> None:
    script = own_loop()
    script.command(SetKnob("dropout", 0.4), CommandState.REJECTED)
    assert [(k.label, k.value) for k in knobs(seen(script))] == [("Dropout (share)", 0.1)]
    script.command(SetKnob("dropout", 0.3), CommandState.APPLIED)
    assert [(k.low, k.value, k.high) for k in knobs(seen(script))] == [(0.0, 0.3, 0.5)]
    script.say(msgspec.structs.replace(DROPOUT, high=0.9, value=0.2))
    assert [(k.value, k.high) for k in knobs(seen(script))] == [(0.2, 0.9)]


def test_a_loop_without_phases_shows_none() -> None:
    snapshot = seen(own_loop())
    shown = strip(snapshot, Status("stopped", "by an operator"), "runs/a", 0.0)
    assert shown.phase is None and "resume=True" in shown.command
    crashed = strip(snapshot, Status("crashed", "the trainer is gone"), "runs/a", 0.0)
    assert crashed.advice == "To go on, start the script again with", "its checkpoints are its own, if it has any"
    diagram = lifecycle(snapshot)
    assert diagram.cause == OWN_LOOP and not any(node.active for node in diagram.nodes.values())
    assert all(len(edges) == 0 for edges in bands(snapshot, 0, 100).edges.values())
    sections = {live.setting.section for live in live_settings(snapshot)}
    assert sections == {"divergence_config", "health"}


def test_what_a_loop_of_its_own_can_never_carry_out_is_not_offered() -> None:
    snapshot = seen(own_loop())
    loop = cast(OwnLoop, SimpleNamespace(optimizer=torch.optim.AdamW([torch.zeros(1)]), save=None))
    for name, commands in REMEDIES.items():
        never = any(supported(command, loop) is not None for command in commands(Config()))
        found = plan(snapshot, name, Config())
        assert found is not None and bool(found.cannot) is never, f"{name}: as the loop itself says"
    found = plan(snapshot, "nan_loss")
    assert found is not None and not found.lines and not found.throws_away and found.nothing == found.cannot


def test_a_loop_that_tells_of_every_tenth_step_has_lines_and_its_holes_are_seen() -> None:
    script = own_loop(0)
    for jump in (10, 10, 10, 10, 200, 10, 10):
        script.step += jump - 1
        script.steps(1)
    snapshot = seen(script)
    found = line(snapshot, snapshot.steps, "loss", Window()).kept.columns["x"]
    np.testing.assert_array_equal(found, [10, 20, 30, 40, np.nan, 240, 250, 260])


def test_of_a_loop_that_tells_of_every_tenth_step_no_step_counts_as_predicted_or_saved() -> None:
    script = own_loop(0)
    for at in range(40):
        if at == 20:
            script.command(SetKnob("dropout", 0.3), CommandState.APPLIED)
        script.step += 9
        script.steps(1, loss=1.0)
    script.steps(1, loss_ema=None)
    snapshot = seen(script)
    found = effect(snapshot, lives(snapshot)[0].seq)
    assert found is not None and "predicted" not in found.text and "loss in 100 steps" in found.text
    (run,) = compared([("a", "working", snapshot)])
    assert (row(run)[4], row(run)[8]) == ("1", words.ABSENT)


def test_in_place_of_phases_the_newest_of_what_the_loop_reports_is_shown() -> None:
    script = own_loop(30)
    script.say(ValidationMeasured(script.step, 0.5, 0.875, 0.1))
    script.say(MetricsMeasured(script.step, {f"metric {i}": float(i) for i in range(20)}))
    script.command(SetKnob("dropout", 0.3), CommandState.APPLIED)
    snapshot = seen(script)
    found = {one.name: (one.value, one.step) for one in own_values(snapshot)}
    assert found["Loss"] == (words.number(snapshot.steps.last("loss")), 30)
    assert found["Validation loss"] == ("0.5", 30) and found["Validation accuracy"] == ("87.5 %", 30)
    assert found["accuracy"] == ("0.5", 30) and found["metric 0"] == ("0", 30)
    assert "and 9 metrics more" in found and "metric 11" not in found
    assert found["Dropout (share)"] == ("0.3", None)
    assert "Update norm" not in {one.name for one in own_values(seen(own_loop(0)))}, "what was never said is left out"
    assert own_values(seen(Script().start().steps(3))) == [], "a run with phases has its diagram"


def test_what_only_phases_have_is_left_out_and_never_said_of_a_loop_without_them() -> None:
    script = own_loop(30)
    snapshot = seen(script)
    shown = strip(snapshot, Status("working", "the trainer says so"), "runs/a", script.time)
    assert strip_figure.binds(shown)["strip.own"] is True
    for cell in re.findall(r'<div class="hy-cell[^>]*><span>(?:Confidence|Backward saved)<', strip_figure.html()):
        assert "hy-phases-only" in cell
    said = now_figure.html(shown, "light")
    assert "step 30 of 1,000" in said and "confidence" not in said
    drawn = loss.figure(loss.view(snapshot, Look(Window())))
    assert "predicted" not in drawn.caption and drawn.caption.startswith("measured 30 points")
    assert "predicted" in loss.figure(loss.view(seen(cycled(2)), Look(Window()))).caption


def test_a_loop_of_no_known_length_has_no_bar_and_no_end() -> None:
    script = own_loop(3)
    (first, *others) = script.rows
    assert isinstance(first.record, RunStarted)
    script.rows = [Row(1, first.time, 1, msgspec.structs.replace(first.record, total_steps=None)), *others]
    shown = strip(seen(script), Status("working", "the trainer says so"), "runs/a", script.time)
    assert strip_figure.binds(shown)["strip.bounded"] is False
    assert "step 3 ·" in now_figure.html(shown, "light")


def test_the_documents_tables_claim_nothing_of_a_loop_whose_settings_they_are_not() -> None:
    snapshot = seen(own_loop())
    moment = Moment(snapshot, RunStatus("working", "it says so"), Connection(), "runs/own", 0.0)
    _, lists = PAGES["reference"].tables(moment)
    assert {row["cells"][4] for row in lists["hyperparameters"]} == {words.ABSENT}
    assert {row["cells"][3] for row in lists["aspects"]} == {words.ABSENT}
    assert not any("this run" in str(row["cells"]) for row in [*lists["schedules"], *lists["expected"]])
    sections = {row["cells"][0].split(".")[0] for row in lists["settings"]}
    assert sections == {"divergence_config", "health"}, "the others are about phases and a trainer"


def test_beside_other_runs_a_loop_without_phases_has_none_and_its_settings_are_no_difference() -> None:
    script = own_loop()
    first = script.rows[0].record
    assert isinstance(first, RunStarted)
    other = {**first.config, "training": {**first.config["training"], "seed": 7}}
    script.rows[0] = Row(1, script.rows[0].time, 1, msgspec.structs.replace(first, config=other))
    runs = compared([("own", "working", seen(script)), ("run", "working", seen(cycled(2)))])
    drawn = figures.phase_shares(runs)
    assert drawn.columns["FULL"].columns["x"].shape == (1,) and drawn.traces[0]["categories"] == ["run"]
    assert drawn.caption.endswith("a loop watched by a Monitor has no phases")
    assert differences(runs) == []
    limit = {**first.config, "health": {**first.config["health"], "plateau_steps": 7}}
    script.rows[0] = Row(1, script.rows[0].time, 1, msgspec.structs.replace(first, config=limit))
    runs = compared([("own", "working", seen(script)), ("run", "working", seen(cycled(2)))])
    assert differences(runs) == [("health.plateau_steps", ["7", "500"])]


def test_the_guide_sends_nobody_to_control_for_what_its_loop_refuses() -> None:
    found = {
        line.name: line
        for one in troubles(seen(own_loop()), Config())
        for line in one.changes
        if line.name != "initial"
    }
    assert found["full_steps"].when == "in the training script" and found["full_steps"].now == words.ABSENT
    assert found["nan_check_enabled"].when == "now, on Control"


def test_the_live_screen_draws_it(written_run: Callable[[str, Script], Path]) -> None:
    feed = Feed(written_run("own", own_loop()))
    try:
        assert feed.wait(10)
        screen = Screen(Board(feed, PAGES["live"]))
        told_ = screen.glance(time.time())
        assert [message.get("name") for message in told_] == [None, "alerts", "happenings", "own.values"]
        assert told_[0]["set"]["life.own"] is True
        assert len(screen.drawings(Ask(), time.time())) == 3
    finally:
        feed.close()


@pytest.fixture
def page(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], AppTest]]:
    monkeypatch.setenv(RUNS_DIR, str(runs_dir))
    yield lambda name: AppTest.from_file(str(MAIN), default_timeout=20).run().switch_page(f"pages/{name}.py").run()
    watch().close()


@pytest.mark.parametrize("ended", [False, True])
def test_both_pages_open_it_and_control_shows_its_knobs(
    page: Callable[[str], AppTest], written_run: Callable[[str, Script], Path], ended: bool
) -> None:
    script = own_loop()
    if ended:
        script.say(RunState(script.step, "finished", "the training loop ended"))
    written_run("own", script)
    live = page("live")
    assert not live.exception and live.selectbox[0].value == "own"
    control = page("control")
    assert not control.exception
    labels = {button.label for button in control.button}
    assert {"Save checkpoint", "Stop run…"} <= labels
    assert labels.isdisjoint({"Force full phase", "Lock prediction", "Roll back…"})
    (slider,) = [said for said in told(control) if said["title"] == "Dropout (share)"]
    assert (slider["value"], slider["places"][0], slider["places"][-1]) == (0.1, 0.0, 0.5)


def test_a_knob_moved_on_the_control_page_is_moved_in_the_loop(
    page: Callable[[str], AppTest], runs_dir: Path, steering: None
) -> None:
    box = {"p": 0.1}
    with Monitor(runs_dir / "own") as monitor:
        monitor.knob("dropout", lambda: box["p"], lambda value: box.update(p=value), low=0, high=0.5)
        monitor.step(loss=1.0)
        until(lambda: (runs_dir / "own" / "endpoint.json").exists(), 20, "the loop has an agent")
        control = page("control")
        said = {"wanted": {"base": 0.1, "value": 0.3}}  # as its browser says it
        control.session_state[component_key("knob_own_dropout")] = said
        control.run()
        (apply,) = [button for button in control.button if button.label == "Apply" and "dropout" in str(button.key)]
        apply.click().run()
        assert not control.exception
        until(lambda: monitor.step(loss=1.0) or box["p"] == 0.3, 20, "the knob moves")
        monitor.finish("the test is over")
