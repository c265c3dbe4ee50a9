"""What pages do beside showing a run (that is test_matrix): addresses, damaged journals, choices."""

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import app
from app import control
from app.views.commands import Outcome
from app.watching import RUNS_DIR, watch
from tests.app.conftest import told, until
from tests.app.rows import Script, cycled
from trainer_core.spec.commands import AcknowledgeAlert, CommandRequest, CommandState
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import MetricsMeasured
from trainer_core.telemetry.journal import JournalWriter
from trainer_core.telemetry.rundir import claim

PAGES = ("live", "phases", "health", "alerts", "control", "compare", "reference")

MAIN = Path(app.__file__).with_name("streamlit_app.py")


@pytest.fixture
def page(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], AppTest]:
    monkeypatch.setenv(RUNS_DIR, str(runs_dir))

    def run(name: str) -> AppTest:
        test = AppTest.from_file(str(MAIN), default_timeout=20)
        test.run()
        return test.switch_page(f"pages/{name}.py").run()

    return run


@pytest.fixture(autouse=True)
def feeds_end(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv(RUNS_DIR, str(runs_dir))
    yield
    watch().close()


def test_an_unknown_run_in_the_address_is_said(
    runs_dir: Path, written_run: Callable[[str, Script], Path], page: Callable[[str], AppTest]
) -> None:
    written_run("run-a", cycled(1))
    test = AppTest.from_file(str(MAIN), default_timeout=20)
    test.query_params["run"] = "gone"
    shown = test.run()
    assert "There is no run called gone" in shown.warning[0].value


def test_a_directory_that_does_not_exist_is_said_to_be_missing(runs_dir: Path) -> None:
    def said() -> str:
        return str(AppTest.from_file(str(MAIN), default_timeout=20).run().markdown[0].value)

    runs_dir.rmdir() if runs_dir.exists() else None
    assert said().startswith(f"There is no directory `{runs_dir}` yet.")
    runs_dir.mkdir()
    assert said().startswith(f"Nothing in `{runs_dir}` has a journal.")


ODD = "lr__1e-3, <b>x [a](b) %41&x=1#漢字"
"""A run's name may be anything that a folder's may."""


@pytest.mark.parametrize("name", PAGES)
def test_a_run_of_an_odd_name_has_every_page(written_run: Callable[[str, Script], Path], name: str) -> None:
    written_run(ODD, cycled(1))
    test = AppTest.from_file(str(MAIN), default_timeout=20)
    shown = test.run().switch_page(f"pages/{name}.py").run()
    assert not shown.exception
    assert shown.selectbox[0].value == ODD


def test_a_run_with_a_comma_in_its_name_is_compared(written_run: Callable[[str, Script], Path]) -> None:
    for run in ("base", "other", "lr=0.1,wd=50%"):
        written_run(run, cycled(1))
    test = AppTest.from_file(str(MAIN), default_timeout=20)
    shown = test.run().switch_page("pages/compare.py")
    shown.query_params["run"], shown.query_params["with"] = "base", "lr=0.1%2Cwd=50%25"
    shown.run()
    assert not shown.exception
    assert shown.multiselect[0].value == ["lr=0.1,wd=50%"]
    assert shown.query_params["with"] == "lr=0.1%2Cwd=50%25"


def test_an_address_cannot_write_markdown(written_run: Callable[[str, Script], Path]) -> None:
    written_run("run-a", cycled(1))
    test = AppTest.from_file(str(MAIN), default_timeout=20)
    test.query_params["run"] = "![x](http://evil.example/x.png)"
    assert r"!\[x\](http\://evil.example/x.png)" in test.run().warning[0].value


@pytest.mark.parametrize("name", PAGES)
def test_a_damaged_journal_is_said_and_harms_no_page(runs_dir: Path, page: Callable[[str], AppTest], name: str) -> None:
    (runs_dir / "broken").mkdir()
    (runs_dir / "broken" / "journal.db").write_bytes(b"this is no database " * 500)
    shown = page(name)
    assert not shown.exception
    assert shown.selectbox[0].value == "broken"
    if name == "control":
        assert "journal.db" in shown.error[0].value


def test_metrics_chosen_on_the_health_page_stay_in_the_address(
    page: Callable[[str], AppTest], written_run: Callable[[str, Script], Path]
) -> None:
    script = cycled(1)
    script.say(MetricsMeasured(script.step, {"f1": 0.5, "recall": 0.7}))
    written_run("run-a", script)
    shown = page("health")
    assert not shown.exception
    box = next(box for box in shown.multiselect if box.label == "Metrics shown first")
    assert (box.options, box.value) == (["f1", "recall"], [])
    shown = box.select("recall").run()
    assert not shown.exception
    assert shown.query_params["metric"] in ("recall", ["recall"])  # one value may come without its list
    assert next(box for box in shown.multiselect if box.label == "Metrics shown first").value == ["recall"]


@pytest.mark.usefixtures("steering")
def test_what_was_pressed_is_done_although_the_run_changed_while_the_page_was_drawn(
    page: Callable[[str], AppTest], written_run: Callable[[str, Script], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = claim(written_run("run-a", cycled(1)))
    try:
        shown = page("control")
        states = iter([1, 2])  # when the forms are drawn, and a moment later
        monkeypatch.setattr("app.widgets.form_state", lambda _feed: next(states, 2))
        shown = next(button for button in shown.button if button.label == "Roll back…").click().run()
        assert not shown.exception
        assert any("No checkpoint to go back to" in text.value for text in shown.markdown), "the dialog is open"
    finally:
        lock.close()


@pytest.mark.usefixtures("steering")
def test_the_learning_rate_to_set_is_that_of_the_run_as_soon_as_there_is_one(
    page: Callable[[str], AppTest], runs_dir: Path
) -> None:
    def fields(shown: AppTest) -> dict[str, str]:
        return {said["title"]: said["shown"] for said in told(shown) if said["title"].startswith("Learning rate (")}

    (runs_dir / "run-a").mkdir()
    writer = JournalWriter(runs_dir / "run-a")
    script = Script().start()
    writer.append([(row.time, row.attempt, row.record) for row in script.rows])
    try:
        shown = page("control")
        assert list(fields(shown)) == ["Learning rate (not measured yet)"]
        script.steps(3, learning_rate=1e-4)
        writer.append([(row.time, row.attempt, row.record) for row in script.rows[1:]])
        feed = watch().feed("run-a")
        until(lambda: feed is not None and feed.snapshot().steps.length == 3, 10, "the steps are known")
        assert fields(shown.run()) == {"Learning rate (now 0.0001)": "0.0001"}
    finally:
        writer.close()


def test_an_address_with_more_runs_and_metrics_than_a_box_takes_shows_the_first_of_them(
    written_run: Callable[[str, Script], Path],
) -> None:
    script = cycled(1)
    script.say(MetricsMeasured(script.step, {f"m{i}": float(i) for i in range(40)}))
    for run in range(12):
        written_run(f"run-{run}", script)
    test = AppTest.from_file(str(MAIN), default_timeout=20)
    test.query_params["run"] = "run-0"
    shown = test.run().switch_page("pages/compare.py")
    shown.query_params["with"] = ",".join(f"run-{run}" for run in (1, 1, 2, 3, 4, 5, 6, 7, 8, 9))
    shown.run()
    assert not shown.exception
    assert shown.multiselect[0].value == [f"run-{run}" for run in range(1, 8)]
    shown = shown.switch_page("pages/health.py")
    shown.query_params["metric"] = ["m1", "m1", *(f"m{i}" for i in range(40))]
    shown.run()
    assert not shown.exception
    assert shown.multiselect[0].value == ["m1", "m0", *(f"m{i}" for i in range(2, 24))]


def test_a_run_that_took_the_place_of_another_is_compared_anew(
    runs_dir: Path, written_run: Callable[[str, Script], Path]
) -> None:
    def headline(shown: AppTest) -> str:
        assert not shown.exception
        return str(next(text.value for text in shown.markdown if str(text.value).startswith("**This run")))

    written_run("hybrid", Script(phase=Phase.FULL).start().steps(50, loss=1.0))
    written_run("plain", Script(phase=Phase.FULL).start().steps(50, loss=2.0))
    test = AppTest.from_file(str(MAIN), default_timeout=20)
    test.query_params["run"], test.query_params["with"] = "hybrid", "plain"
    shown = test.run().switch_page("pages/compare.py").run()
    shown = shown.selectbox[1].select("plain").run()
    assert "last training loss EMA of 2." in headline(shown)
    shutil.rmtree(runs_dir / "plain")
    written_run("plain", Script(phase=Phase.FULL).start().steps(50, loss=0.5))
    feed = watch().feed("plain")
    until(lambda: feed is not None and 0.5 in feed.snapshot().steps["loss"], 20, "the other run is known")
    assert "last training loss EMA of 0.5" in headline(shown.run())


@pytest.mark.usefixtures("steering")
def test_what_became_of_a_command_without_an_answer_is_asked_on_every_page_that_shows_it(
    page: Callable[[str], AppTest], written_run: Callable[[str, Script], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answered(_run_dir: Path, sent: control.Sent) -> control.Sent:
        return replace(sent, outcome=Outcome(CommandState.EXPIRED, detail="not applied within 60 s"))

    written_run("run-a", cycled(1))
    request = CommandRequest("c0000001", AcknowledgeAlert("alert-1"))
    shown = page("alerts")
    shown.session_state["sent"] = {"c0000001": control.Sent("run-a", request, False, Outcome(None), time.monotonic())}
    shown.session_state["sent_from_alerts"] = ["c0000001"]
    monkeypatch.setattr("app.control.ask_again", answered)
    shown.run()
    assert not shown.exception
    assert any("expired: not applied within 60 s" in html.proto.body for html in shown.get("html"))
    assert any(button.label == "Close" for button in shown.button)
