"""Every page on every kind of run: what Streamlit lays out and what the live component is told, one claim a cell."""

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from streamlit.testing.v1 import AppTest

import app
from app.access import READ_ONLY, Gate, install
from app.answers import PRESSED
from app.board import Board
from app.feed import Feed
from app.replay import Wish
from app.screen import Ask, Screen
from app.screens.registry import PAGES
from app.watching import RUNS_DIR, watch
from tests.app.conftest import Unlocked
from tests.app.rows import Script, cycled
from tests.app.test_figures import points
from trainer_core.spec.records import AlertRaised, CheckpointSaved, RunState
from trainer_core.spec.severity import Severity
from trainer_core.telemetry.rundir import claim

MAIN = Path(app.__file__).with_name("streamlit_app.py")
ALL = (*PAGES, "control")
KINDS = ("empty", "started", "live", "diverged", "finished", "recorded", "read-only")
HELD = ("started", "live", "diverged", "read-only")
"""Runs whose trainer is alive. A recorded one has lost it without a last word, and is replayed to its middle."""
HALF = Wish(at=0.48, playing=False, turn=1)
SENDS = ("Pause training", "Save checkpoint", "Roll back…", "Stop run…", "Force full phase", "Lock prediction", "Add")
ACCOUNT = "Choose a plain baseline run above"

EVERYWHERE: dict[str, dict[str, object]] = {
    "empty": {"subheader": "No run yet", "code": "hybrid demo"},
    "started": {"run": "● run-a · working", "strip.because": "starting", "strip.step": "0", "strip.confidence": "–"},
    "live": {"run": "● run-a · working", "strip.because": "steps are coming", "strip.phase": "C CORRECT",
             "strip.step": "120", "strip.saved": "40 %", "strip.alerts": "none open", "feed.critical": "",
             "replay.on": False},
    "diverged": {"run": "● run-a · working", "strip.step": "125", "strip.alerts": "1 open",
                 "strip.alerts_tone": "critical", "feed.critical": "not finite"},
    "finished": {"run": "✓ run-a · finished", "strip.because": "all steps done", "strip.command": "hybrid report",
                 "strip.rate": "–", "strip.eta": "–"},
    "recorded": {"run": "✖ run-a · crashed", "strip.state": "replay", "replay.on": True, "strip.step": "49",
                 "strip.phase": "F FULL", "strip.alerts": "none open", "feed.critical": "", "feed.via": "replay"},
    "read-only": {"run": "● run-a · working", "strip.step": "125", "strip.alerts": "1 open"},
}  # fmt: skip
"""By kind of run: what every page shows. A text is to be found in what is shown, anything else is to be it."""

CELLS: dict[str, dict[str, dict[str, object]]] = {
    "live": {
        "empty": {"button": {}},
        "started": {"figure:loss": "measured 0 points", "life.WARMUP.on": False, "list:happenings": "[]"},
        "live": {"figure:loss": "measured 72 points · predicted 8", "life.CORRECT.on": True, "list:alerts": "[]",
                 "life.CORRECT.progress": "step 3 of 3", "list:happenings": "checkpoint step-120"},
        "diverged": {"list:alerts": "not finite: NaN", "marks:gradient:mark_nan": 1, "marks:loss:mark_nan": 1},
        "finished": {"list:happenings": "finished: all steps done", "figure:loss": "measured 72 points"},
        "recorded": {"figure:loss": "measured 37 points", "life.FULL.progress": "step 4 of 10", "list:alerts": "[]"},
        "read-only": {"info": READ_ONLY, "list:alerts": "not finite: NaN"},
    },
    "phases": {
        "empty": {"button": {}},
        "started": {"why.title": "What happens next", "predict.begun": False},
        "live": {"why.title": "What ends this correction?", "pm.CORRECT.on": True, "predict.share": "40 %",
                 "pm.row0.not_finite.detail": "all finite"},
        "diverged": {"pm.row0.not_finite": True, "pm.row0.not_finite.detail": "NaN or Inf"},
        "finished": {"why.title": "How it stood", "why.answer": "The run is finished."},
        "recorded": {"why.title": "Why not predicting yet?", "why.answer": "FULL has just begun.",
                     "pm.FULL.on": True, "predict.said": "steps 31 to 42"},
        "read-only": {"info": READ_ONLY, "pm.row0.not_finite": True},
    },
    "health": {
        "empty": {"multiselect": {}},
        "started": {"sign.nan.line": "nothing measured yet", "figure:gradient": "0 points"},
        "live": {"sign.nan.line": "not seen", "health.norm": "now 1", "list:health.zones": "▶ Healthy"},
        "diverged": {"health.norm": "now nan", "figure:sign_nan": "explosion point: step 121, for 5 steps"},
        "finished": {"health.norm": "now 1", "figure:sign_nan": "no NaN or infinite loss so far"},
        "recorded": {"sign.nan.line": "not seen", "figure:gradient": "37 points"},
        "read-only": {"info": READ_ONLY, "figure:sign_nan": "explosion point: step 121"},
    },
    "alerts": {
        "empty": {"button": {}},
        "started": {"alerts.count": "0 open · 0 in all", "issue.nan_loss": "nothing to judge by yet"},
        "live": {"alerts.count": "0 open · 0 in all", "issue.nan_loss.tone": "muted", "issue.nan_loss.can": True},
        "diverged": {"alerts.count": "1 open · 1 in all", "list:entries": "Acknowledge", "issue.nan_loss": "alert open",
                     "list:symptoms.nan_loss": "5 steps from 121", "list:mended.underfitting": "NaN, limit"},
        "finished": {"alerts.count": "0 open", "issue.nan_loss.can": False, "list:rules": "1.57"},
        "recorded": {"alerts.count": "0 open · 0 in all", "list:entries": "[]", "issue.nan_loss.can": False},
        "read-only": {"info": READ_ONLY, "list:entries": "not finite: NaN"},
    },
    "compare": {
        "empty": {"multiselect": {}},
        "started": {"list:cmp.runs": "run-a, working, digits, 0", "caption": ACCOUNT},
        "live": {"list:cmp.runs": "run-a, working, digits, 120, 1.57", "caption": ACCOUNT,
                 "multiselect": {"Beside it": "on"}},
        "diverged": {"list:cmp.runs": "run-a, working, digits, 125, NaN"},
        "finished": {"list:cmp.runs": "run-a, finished, digits, 120, 1.57"},
        "recorded": {"list:cmp.runs": "run-a, replay, digits, 49, 1.81"},
        "read-only": {"list:cmp.runs": "run-a, working, digits, 125, NaN", "button": {}},
    },
    "reference": {
        "empty": {"button": {}},
        "started": {"reference.preset": "nearest preset", "emergency.nan_loss": "weights step 0 → last good",
                    "list:expected": "this run"},
        "live": {"emergency.nan_loss": "weights step 120 → step 120", "emergency.nan_loss.can": True,
                 "list:zones": "● 1", "button": {"Read 90 rows and show the account": "on"}},
        "diverged": {"emergency.nan_loss": "weights step 125 → step 120", "emergency.nan_loss.can": True},
        "finished": {"emergency.nan_loss.can": False, "caption": "Expected of the nearest preset",
                     "table": "Backward reduction"},
        "recorded": {"emergency.nan_loss.can": False, "list:phases": "W Warmup, Full, 100-500, Baseline, 20, 41 %"},
        "read-only": {"info": READ_ONLY, "emergency.nan_loss": "weights step 125 → step 120"},
    },
    "control": {
        "empty": {"button": {}},
        "started": {"button": dict.fromkeys(SENDS, "on"), "slider": {"Confidence threshold (share)": 0.85},
                    "markdown": "weights: step 0 → **last good checkpoint**"},
        "live": {"button": dict.fromkeys((*SENDS, "Apply all of it…"), "on"), "now": "step 120",
                 "slider": {"Confidence threshold (share)": 0.85, "Divergence threshold (sigma)": 3.0},
                 "caption": "You may steer as Test."},
        "diverged": {"button": dict.fromkeys((*SENDS, "Apply all of it…"), "on"),
                     "markdown": "weights: step 125 → **step 120**", "caption": "Throws away 5 steps"},
        "finished": {"button": dict.fromkeys((*SENDS, "Apply all of it…"), "off"), "now": "finished",
                     "caption": "This run is finished: it takes no commands."},
        "recorded": {"button": dict.fromkeys((*SENDS, "Apply all of it…"), "off"), "now": "crashed",
                     "caption": "This run is crashed: it takes no commands."},
        "read-only": {"button": dict.fromkeys((*SENDS, "Apply all of it…"), "off"), "info": READ_ONLY,
                      "expander": "[]"},
    },
}  # fmt: skip
"""By page and kind of run: what this page shows of this run, beside what is everywhere."""


def script_of(kind: str) -> Script:
    """The run of a kind, its newest row said now."""
    script = Script().start() if kind == "started" else cycled(4)
    if kind != "started":
        script.say(CheckpointSaved(script.step, "step-120", 10, True, "every 120 steps", 0.1))
    if kind in ("diverged", "recorded", "read-only"):
        script.steps(5, loss=math.nan, grad_norm=math.nan)
        said = "loss is NaN"
        script.say(AlertRaised(script.step, "a1", "not finite", Severity.CRITICAL, "loss", math.nan, 0.0, said, None))
    if kind == "finished":
        script.say(RunState(script.step, "finished", "all steps done"))
    late = time.time() - script.time
    script.rows = [msgspec.structs.replace(row, time=row.time + late) for row in script.rows]
    return script


@pytest.fixture
def kind(
    request: pytest.FixtureRequest,
    runs_dir: Path,
    written_run: Callable[[str, Script], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    """A runs directory with one run of this kind, and the gate that goes with it."""
    named = str(request.param)
    monkeypatch.setenv(RUNS_DIR, str(runs_dir))
    install(Gate(read_only=True) if named == "read-only" else Unlocked())
    lock = None
    if named != "empty":
        run_dir = written_run("run-a", script_of(named))
        lock = claim(run_dir) if named in HELD else None
    yield named
    watch().close()
    install(None)
    if lock is not None:
        lock.close()


def laid_out(page: str, kind: str) -> dict[str, object]:
    """What Streamlit shows: texts by kind of element, buttons with on or off, sliders with their values.

    On a read-only dashboard something is pressed first, as a browser would that was made to.
    """
    test = AppTest.from_file(str(MAIN), default_timeout=20)
    test.run()
    if kind == "read-only":
        test.session_state[PRESSED] = {"what": "acknowledge", "which": "a1"}
    test = test.switch_page(f"pages/{page}.py").run()
    assert not test.exception
    texts = {name: str([element.value for element in test.get(name)])
             for name in ("subheader", "code", "info", "caption", "markdown", "table")}  # fmt: skip
    components = [element.proto for element in test.get("bidi_component")]
    sliders = [proto.json for proto in components if proto.component_name == "hybrid_slider"]
    return texts | {
        "run": str([box.options for box in test.selectbox[:1]]),
        "button": {button.label: "off" if button.disabled else "on" for button in test.button},
        "multiselect": {box.label: "off" if box.disabled else "on" for box in test.multiselect},
        "slider": {told["title"]: told["value"] for told in map(json.loads, sliders)},
        "expander": str([box.label for box in test.expander]),
        "now": str([html.proto.body for html in test.get("html")]),
        "sent": test.session_state["sent"] if "sent" in test.session_state else {},  # noqa: SIM401 (it has no get)
    }


def drawn(feed: Feed, page: str, kind: str) -> dict[str, object]:
    """What the live component is told: bound values, lists as text, captions of figures, numbers of their points."""
    screen = Screen(Board(feed, PAGES[page]))
    shown: dict[str, object] = {}
    try:
        if kind == "recorded":
            screen.show(HALF, 0.0)
        for message in screen.glance(time.time()):
            if message["t"] == "bind":
                shown |= message["set"]
            else:
                shown[f"list:{message['name']}"] = str(message["items"]).replace("'", "")
        for figure in screen.drawings(Ask(), time.time()):
            shown[f"figure:{figure['name']}"] = figure["caption"]
            for name, change in figure.get("columns", {}).items():
                shown[f"marks:{figure['name']}:{name}"] = len(points(change["add"].get("x", [])))
    finally:
        screen.close()
    return shown


def test_every_cell_has_its_claim() -> None:
    assert set(CELLS) == set(ALL) and set(EVERYWHERE) == set(KINDS)
    assert [page for page in CELLS if tuple(CELLS[page]) != KINDS] == []
    assert [(page, kind) for page in CELLS for kind in KINDS if not CELLS[page][kind]] == []


@pytest.mark.parametrize("page", ALL)
@pytest.mark.parametrize("kind", KINDS, indirect=True)
def test_a_page_shows_a_run(page: str, kind: str) -> None:
    shown = laid_out(page, kind)
    assert shown["sent"] == {}, "nothing is sent by looking, and nothing where nobody may steer"
    expected = EVERYWHERE[kind] | CELLS[page][kind]
    if page in PAGES and kind != "empty":
        feed = watch().feed("run-a")
        assert feed is not None and feed.wait(10)
        shown |= drawn(feed, page, kind)
    elif page not in PAGES:  # the Control page has no live component: its strip is one line, "now"
        expected = {place: claim for place, claim in expected.items() if place in shown}
    for place, claim_ in expected.items():
        assert place in shown, f"nothing is shown as {place}"
        found = shown[place]
        if isinstance(claim_, dict) and claim_:
            assert isinstance(found, dict) and claim_.items() <= found.items(), f"{place}: {found}"
        elif isinstance(claim_, str):
            assert claim_ in str(found) and (claim_ or not found), f"{place}: {found!r}"
        else:
            assert found == claim_, f"{place}: {found!r}"
