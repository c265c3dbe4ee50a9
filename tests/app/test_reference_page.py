"""Claims about the Reference page: the document's tables with the run's own values, settings, files to take along."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import msgspec
import polars as pl
import pytest
from starlette.requests import Request
from starlette.types import Message

from app.exports import Exports
from app.feed import Watch
from app.screens import reference as screen
from app.views import account, configuration, reference
from app.views.exports import EXPORTS
from app.views.reference import Row
from app.views.settings import present_config
from tests.app.rows import Script, cycled
from tests.app.test_alerts_page import moment
from tests.app.test_own_loops import own_loop
from tests.app.test_views import seen
from trainer_core.spec.commands import CommandState, SetThreshold
from trainer_core.spec.config import ALL_SETTINGS, Config
from trainer_core.spec.loading import resolve, tables_of
from trainer_core.spec.phases import Phase
from trainer_core.spec.presets import PRESETS
from trainer_core.spec.records import Explained, GuardLine, RunStarted, RunState
from trainer_core.spec.transitions import TRANSITIONS

CONFIG = Config()


_GUARDS = ("full_cycle_ran", "confident", "calm")


def row(rows: list[Row], first: str) -> Row:
    return next(found for found in rows if found.cells[0] == first)


def test_the_triggers_have_their_limits_in_force_and_what_was_measured() -> None:
    script = cycled(1)
    script.steps(1, loss_deviation=4.0, update_ratio=1.0)
    config = resolve({"divergence_threshold": 3.5}).config
    rows = reference.triggers(seen(script), config)
    assert len(rows) == 7
    assert row(rows, "Loss deviation") == Row(("Loss deviation", "> 3.5 σ", "4 σ", "Exit to Full"), "warning")
    assert row(rows, "Gradient vanishing").cells[1:3] == ("< 0.01 ×", "1 ×")
    assert row(rows, "NaN/Inf values").cells[2] == "all finite" and row(rows, "Prediction error").cells[2] == "–"


def test_a_nan_loss_is_a_trigger_that_fires() -> None:
    script = Script().start().steps(3, loss=float("nan"))
    assert row(reference.triggers(seen(script), CONFIG), "NaN/Inf values").tone == "critical"


def test_transitions_show_the_live_truth_of_the_present_phase_only() -> None:
    script = cycled(2)
    script.enter(Phase.FULL, 10)
    script.steps(3)
    lines = [
        GuardLine(Phase.PREDICT, g, g != "confident", f"{g} said") for g in ("full_cycle_ran", "confident", "calm")
    ]
    script.say(Explained(script.step, Phase.FULL, (*lines, GuardLine(Phase.PREDICT, "unlocked", True, "not locked"))))
    rows = reference.transitions(seen(script))
    assert len(rows) == len(TRANSITIONS)
    found = next(r for r in rows if r.cells[3] == "confident")
    assert found.cells[:3] == ("FULL", "PREDICT", "2×")
    assert found.cells[5] == "✓ full_cycle_ran said; ✗ confident said; ✓ calm said; ✓ not locked" and found.tone == ""
    assert all(r.cells[5] == "–" for r in rows if r.cells[0] != "FULL")


@pytest.mark.parametrize(
    ("norm", "zone"),
    [(1.0, "Healthy"), (50.0, "Explosion"), (0.05, "Vanishing"), (500.0, "Extreme"), (1e-4, "Extreme")],
)
def test_the_zone_of_the_gradient_norm_is_marked_and_no_other(norm: float, zone: str) -> None:
    rows = reference.zones(seen(Script().start().steps(2, grad_norm=norm)), CONFIG)
    assert [r.cells[0] for r in rows if r.cells[-1]] == [zone]
    assert [r.cells[0] for r in rows if r.tone] == [zone]


def test_the_thresholds_are_the_documents_own_numbers() -> None:
    rows = reference.thresholds(seen(cycled(1)), CONFIG)
    assert [r.cells[:4] for r in rows] == [
        ("Confidence", "> 0.85", "0.7 - 0.85", "< 0.7"),
        ("Loss deviation", "< 2 σ", "2 σ - 3 σ", "> 3 σ"),
        ("Gradient norm", "0.1 - 10", "0.01 - 0.1 or 10 - 100", "< 0.01 or > 100"),
        ("Prediction error", "< 10 %", "10 % - 20 %", "> 20 %"),
    ]


@pytest.mark.parametrize("preset", ["small", "medium", "large"])
def test_a_run_of_a_preset_agrees_with_it_in_every_row(preset: str) -> None:
    config = resolve({}, preset=preset).config
    rows = reference.hyperparameters(config)
    assert all(preset in r.cells[-1] and not r.tone for r in rows)
    assert configuration.nearest(config)[0] == preset
    assert [r.cells[0] for r in rows] == [
        "warmup_steps", "full_steps", "max_predict_steps", "confidence_threshold", "divergence_threshold",
        "learning_rate", "predictor_type", "predictor_ensemble",
    ]  # fmt: skip


def test_a_value_of_no_preset_is_marked() -> None:
    rows = reference.hyperparameters(resolve({"full_steps": 33}).config)
    assert row(rows, "full_steps") == Row(("full_steps", "20", "30", "50", "33", "none of them"), "caution")


def test_more_backward_passes_than_steps_are_nothing_to_be_pleased_with() -> None:
    script = Script(phase=Phase.FULL).start().steps(100)
    script.roll_back(10)
    script.steps(10)
    assert reference.expected(seen(script))[-1] == Row(("this run", "account below", "account below", "-450% measured"))


def test_the_schedule_guide_marks_the_runs_own() -> None:
    rows = reference.schedules(resolve({"learning_rate_schedule": {"type": "Cyclic"}}).config)
    assert [r.cells[0] for r in rows if r.tone] == ["Adversarial"]


def test_phases_say_what_this_run_did_and_a_loop_without_them_has_none() -> None:
    rows = reference.phases(seen(cycled(4)))
    assert [r.cells[4:8] for r in rows] == [
        ("20", "17 %", "1", "20.0"),
        ("40", "33 %", "4", "10.0"),
        ("48", "40 %", "4", "12.0"),
        ("12", "10 %", "4", "3.0"),
    ]
    assert [r.cells[0] for r in rows if r.tone] == ["C Correct"]
    watched = screen.tables(moment(own_loop()))[1]
    assert watched["phases"] == [] and watched["transitions"] == [] and watched["thresholds"]


# -- settings ---------------------------------------------------------------------------------------------------------


def test_the_settings_tell_what_was_changed_while_training_ran() -> None:
    script = cycled(1)
    script.command(SetThreshold("confidence_threshold", 0.9), CommandState.APPLIED)
    snapshot = seen(script)
    found = configuration.resolved(snapshot, present_config(snapshot))
    assert found is not None and len(found.lines) == len(ALL_SETTINGS)
    changed = [line for line in found.lines if line.changed]
    assert [(c.name, c.now, c.began) for c in changed] == [
        ("hybrid_trainer_config.confidence_threshold", "0.9", "0.85")
    ]
    differing = {line.name for line in found.lines if line.differs}
    named = {f"{s}.{k}" for s, table in PRESETS[found.preset].items() for k in table}
    assert differing <= named, "by default, all that differs is what the preset names"


# -- the account ------------------------------------------------------------------------------------------------------


def test_the_account_says_what_is_measured_and_what_is_an_estimate() -> None:
    saved = {"speedup": 1.5, "net_seconds": 10.0, "basis": "estimate", "method": "steps x median"}
    told = {
        "ledger": {"saved": saved}, "comparison": None, "backward_reduction": 0.4, "backward_passes": 60, "steps": 100,
        "training_seconds": 20.0, "predictions": {"kept": 3, "undone": 1}, "final_loss": "NaN", "validation_loss": None,
    }  # fmt: skip
    rows = {r["figure"]: r for r in account.rows(told, "small")}
    assert rows["Speedup"] == {
        "figure": "Speedup", "this run": "1.50x", "how it is known": "an estimate: steps x median",
        "the document expects": "4-6x",
    }  # fmt: skip
    assert rows["Loss gap"]["this run"] == "not measured" and "no baseline" in rows["Loss gap"]["how it is known"]
    assert rows["Backward reduction"]["this run"] == "40%" and rows["Final loss"]["this run"] == "NaN"
    told |= {"comparison": {"at_equal_steps": {"gap": -0.012}, "baseline": "plain"}}
    assert {r["figure"]: r for r in account.rows(told, "small")}["Loss gap"]["this run"] == "-1.2%"


# -- files ------------------------------------------------------------------------------------------------------------


@dataclass
class Answer:
    """What a browser would have got."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""

    @property
    def text(self) -> str:
        return self.content.decode()


Get = Callable[[str, str], Answer]


@pytest.fixture
def get(runs_dir: Path, written_run: Callable[[str, Script], Path]) -> Iterator[Get]:
    """Ask the route for a file of a run."""
    script = cycled(2)
    script.say(RunState(script.step, "finished", "all steps done"))
    written_run("run a", script)
    watch = Watch(runs_dir)

    async def ask(run: str, kind: str) -> Answer:
        answer = Answer()

        async def receive() -> Message:
            await asyncio.Event().wait()  # the browser stays
            raise AssertionError

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            else:
                answer.content += message.get("body", b"")

        query = urlencode({"run": run, "kind": kind}).encode()
        scope = {"type": "http", "method": "GET", "path": "/live/export", "query_string": query, "headers": []}
        response = await Exports(watch).serve(Request(scope))
        await response(scope, receive, send)
        return answer

    yield lambda run, kind: asyncio.run(ask(run, kind))
    watch.close()


def test_steps_come_as_a_file_named_after_the_run_and_nothing_is_left_behind(
    get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = get("run a", "steps-parquet")
    assert found.status == 200 and 'filename="run_a.parquet"' in found.headers["content-disposition"]
    (tmp_path / "steps.parquet").write_bytes(found.content)
    assert pl.read_parquet(tmp_path / "steps.parquet").height == 46
    assert not list(tmp_path.glob("hybrid-export-*"))


def test_no_two_files_of_a_run_have_one_name() -> None:
    endings = [export.ending for export in EXPORTS.values()]
    assert len(set(endings)) == len(endings), "the second would take the place of the first, or be called (1)"


def test_the_final_statistics_are_the_end_of_the_report(get: Get) -> None:
    text = get("run a", "statistics").text
    assert text.startswith("Final Statistics (70 steps):\n") and "Backward passes: 46 (vs 70 baseline)" in text


def test_settings_and_metadata_come_without_reading_the_journal_again(get: Get, tmp_path: Path) -> None:
    text = get("run a", "config").text
    (tmp_path / "config.toml").write_text(text)
    again = resolve(msgspec.toml.decode(text)).config
    assert tables_of(again) == tables_of(CONFIG)
    told = json.loads(get("run a", "metadata").text)
    assert told["run"] == "run a" and told["started"]["task"] == "digits" and told["status"]["state"] == "finished"


def test_what_is_no_run_or_no_kind_is_refused_in_words(get: Get, runs_dir: Path) -> None:
    assert get("../run a", "log").status == 404
    refused = get("run a", "--all")
    assert refused.status == 400 and "must be one of steps-parquet" in refused.text
    (runs_dir / "broken").mkdir()
    (runs_dir / "broken" / "journal.db").write_bytes(b"this is no database " * 500)
    broken = get("broken", "log")
    assert broken.status == 409 and "journal.db" in broken.text


def test_every_kind_of_file_is_offered_and_each_command_is_one_that_there_is() -> None:
    offered = {item["href"].rsplit("kind=", 1)[1] for item in screen.tables(moment(cycled(1)))[1]["exports"]}
    assert offered == set(EXPORTS)
    assert {export.words[0] for export in EXPORTS.values() if export.words} == {"export", "report"}


def test_the_run_started_of_another_version_shows_no_settings() -> None:
    script = cycled(1)
    (first, *rest) = script.rows
    assert isinstance(first.record, RunStarted)
    odd = msgspec.structs.replace(first.record, config={"of": {"tomorrow": 1}})
    script.rows = [msgspec.structs.replace(first, record=odd), *rest]
    bound, lists = screen.tables(moment(script))
    assert lists["settings"] == [] and bound["reference.preset"] == screen.UNKNOWN
