"""Sliders, revisions, effects, rollback previews, the audit: what Control computes before and after a press."""

import csv
import io
import time

import pytest

from app.control import Sent
from app.figures import commands as figure
from app.history import in_order
from app.slider import said
from app.store import Snapshot, Store
from app.views.audit import as_csv, audit
from app.views.commands import (
    Outcome,
    asks_first,
    expected_rev,
    lives,
    rollback_targets,
    sentence,
    state_rev,
    title,
)
from app.views.effects import effect
from app.views.settings import LiveSetting, notches
from tests.app.rows import Script, cycled
from trainer_core.spec.commands import (
    Annotate,
    ApplyRemedy,
    Command,
    CommandRequest,
    CommandState,
    ForcePhase,
    Refusal,
    Rollback,
    ScaleLearningRate,
    SetLearningRate,
    SetPhaseLength,
    SetThreshold,
    Stop,
)
from trainer_core.spec.config import ALL_SETTINGS
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import CheckpointSaved

LIVE = [setting for setting in ALL_SETTINGS if setting.live]
MOVE = SetThreshold("confidence_threshold", 0.9)
ANN = "“Ann” (name as typed, session 7F3K)"


def snapshot(script: Script) -> Snapshot:
    store = Store()
    store.append(script.rows)
    return store.snapshot()


@pytest.mark.parametrize("setting", LIVE, ids=lambda setting: setting.name)
def test_every_live_setting_has_a_slider_between_its_bounds(setting: object) -> None:
    live = LiveSetting(setting, float(setting.default))  # type: ignore[arg-type,attr-defined]
    low, high = live.bounds
    places = notches(live)
    assert places == sorted(set(places)) and (places[0], places[-1]) == (low, high)
    assert live.value in places and 2 <= len(places) <= 200
    if setting.type == "int":  # type: ignore[attr-defined]
        assert all(place == int(place) for place in places)


@pytest.mark.parametrize(
    ("wanted", "stands"),
    [
        ({"base": 3.0, "value": 4.25}, 4.25),
        ({"base": 3.0, "value": 1e9}, 100.0),
        ({"base": 2.5, "value": 4.25}, 3.0),
        ({"base": 3.0, "value": float("nan")}, 3.0),
        ({"base": 3.0, "value": "4"}, 3.0),
        ({"base": 3.0, "value": True}, 3.0),
        ({"value": 4.25}, 3.0),
        (None, 3.0),
        ("4", 3.0),
    ],
)
def test_a_slider_stands_where_the_browser_says_within_the_bounds_and_beside_the_value_in_force(
    wanted: object, stands: float
) -> None:
    assert said(wanted, 3.0, (0.1, 100.0), whole=False) == stands
    assert said({"base": 3.0, "value": 4.6}, 3.0, (1.0, 100.0), whole=True) == 5.0


def test_a_value_between_the_notches_gets_one_of_its_own() -> None:
    live = LiveSetting(next(s for s in LIVE if s.name == "divergence_threshold"), 3.14159)
    assert 3.14159 in notches(live)


@pytest.mark.parametrize(
    ("command", "rate", "asked"),
    [
        (Rollback(), 1e-3, True),
        (Stop(), 1e-3, True),
        (ApplyRemedy("nan_loss"), 1e-3, True),
        (MOVE, 1e-3, False),
        (ForcePhase(Phase.FULL), None, False),
        (SetLearningRate(2e-3), 1e-3, False),
        (SetLearningRate(1e-2), 1e-3, True),
        (SetLearningRate(1e-4), 1e-3, True),
        (SetLearningRate(1e-3), None, True),
        (ScaleLearningRate(0.5), None, False),
        (ScaleLearningRate(10.0), None, True),
        (ScaleLearningRate(0.1), None, True),
    ],
)
def test_what_can_end_a_run_is_asked_first(command: Command, rate: float | None, asked: bool) -> None:
    assert asks_first(command, rate) is asked


def test_a_change_is_sent_with_the_revision_that_was_seen_unless_only_mine_came_since() -> None:
    script = Script().start()
    assert state_rev(snapshot(script)) == 0
    script.command(MOVE, CommandState.APPLIED, "mine0001", rev=1)
    assert expected_rev(snapshot(script), 0, {"mine0001"}) == 1
    assert expected_rev(snapshot(script), 0, set()) == 0, "somebody else's: a conflict"
    script.command(MOVE, CommandState.APPLIED, "theirs01", rev=2)
    script.command(MOVE, CommandState.ACCEPTED, "mine0002", rev=2)
    assert expected_rev(snapshot(script), 1, {"mine0001", "mine0002"}) == 1
    assert expected_rev(snapshot(script), 2, {"mine0001"}) == 2


def test_a_conflict_is_said_in_words() -> None:
    said = sentence(Outcome(CommandState.REJECTED, refusal=Refusal.CONFLICT, detail="state_rev is 4, 3 was expected"))
    assert said.startswith("refused: somebody else changed the run first") and "press again" in said
    assert "never sent twice" in sentence(Outcome(None))


def test_each_command_says_what_was_asked() -> None:
    assert title(SetLearningRate(3e-4)) == "Set learning rate to 0.0003"
    assert title(SetPhaseLength(Phase.PREDICT, 80)) == "Set length of PREDICT to 80 steps"
    assert title(ApplyRemedy("nan_loss")) == "Apply remedy nan loss"


def test_the_life_of_a_command_shows_its_way_and_what_came_after() -> None:
    script = Script().start()
    script.enter(Phase.FULL)
    script.steps(40)
    script.command(MOVE, CommandState.ACCEPTED)
    script.time += 0.5
    script.command(MOVE, CommandState.APPLIED, before="0.85", after="0.9", rev=1)
    (life,) = lives(snapshot(script))
    assert [stage.state for stage in life.stages] == [CommandState.ACCEPTED, CommandState.APPLIED]
    assert effect(snapshot(script), life.seq) is None, "no step came yet"
    script.enter(Phase.PREDICT)
    script.stretch(30)
    script.enter(Phase.FULL)
    script.steps(30, loss=0.5)
    found = effect(snapshot(script), life.seq)
    assert found is not None
    assert (found.before.steps, found.after.steps) == (40, 30)
    assert found.before.predicted == 0.0 and found.after.predicted == 0.0
    assert found.before.slope is not None and found.before.slope < 0
    assert found.after.slope == pytest.approx(0.0, abs=1e-9)
    html = figure.html([life.with_effect(found.text)], "light")
    assert "accepted " in html and "(0.5 s)" in html and "so far (30 of 100 steps)" in html


def test_what_only_this_page_knows_of_does_not_push_newer_commands_off_the_list() -> None:
    script = Script(time=time.time() - 60.0).start().steps(5)
    script.time = time.time() - 1.0
    script.command(MOVE, CommandState.APPLIED, "newest", rev=1)
    request = CommandRequest("refused1", MOVE)
    mine = [Sent("run", request, False, Outcome(CommandState.REJECTED), time.monotonic() - age) for age in (30.0, 20.0)]
    mine.append(Sent("run", CommandRequest("waiting1", MOVE), False, Outcome(None), time.monotonic()))
    shown = in_order(mine, lives(snapshot(script)))
    assert [life.command_id for life in shown] == ["waiting1", "newest", "refused1", "refused1"]


def test_predicted_steps_around_a_command_are_counted_from_the_jumps() -> None:
    script = Script().start()
    script.enter(Phase.FULL)
    script.steps(50)
    script.command(MOVE, CommandState.APPLIED)
    for _ in range(5):
        script.steps(10)
        script.stretch(10)
    script.steps(1)
    found = effect(snapshot(script), lives(snapshot(script))[0].seq)
    assert found is not None and found.before.predicted == 0.0
    assert found.after.predicted == pytest.approx(100 * 50 / 101)


def test_a_rollback_says_its_price_and_the_loss_there_and_now() -> None:
    script = Script().start()
    script.enter(Phase.FULL)
    for name, good, best in (("step-10", True, True), ("step-20", True, False), ("step-30", False, False)):
        script.steps(10, loss=float(name[-2:]))
        script.say(CheckpointSaved(script.step, name, 1, good, "every", 0.1, best))
    script.steps(60, loss=90.0)
    targets = {target.name: target for target in rollback_targets(snapshot(script))}
    assert list(targets) == ["step-30", "step-20", "step-10"]
    assert targets["step-10"].best and "best validation loss" in targets["step-10"].label
    assert "not known to be good" in targets["step-30"].label
    assert (targets["step-20"].loss, targets["step-20"].loss_now) == (20.0, 90.0)
    assert targets["step-20"].steps_lost == 70 and targets["step-20"].seconds_lost == pytest.approx(7.0)


def test_the_best_checkpoint_is_offered_however_old_it_is() -> None:
    script = Script().start()
    for number in range(1, 9):
        script.steps(10)
        script.say(CheckpointSaved(script.step, f"c{number}", 1, True, "every", 0.1, number == 2))
    assert [target.name for target in rollback_targets(snapshot(script))] == ["c8", "c7", "c6", "c2"]


def test_what_was_deleted_is_offered_no_more_and_all_else_is() -> None:
    script = Script().start()
    deleted: dict[int, tuple[str, ...]] = {7: ("c1", "c3"), 8: ("c4",)}
    for number in range(1, 9):
        script.steps(10)
        name, gone = f"c{number}", deleted.get(number, ())
        script.say(CheckpointSaved(script.step, name, 1, True, "every", 0.1, number == 5, gone))
    targets = rollback_targets(snapshot(script))
    assert [target.name for target in targets] == ["c8", "c7", "c6", "c5", "c2"]
    assert [target.name for target in targets if target.best] == ["c5"]


def audited() -> Script:
    script = cycled(1)
    script.command(MOVE, CommandState.ACCEPTED, "a0000001")
    script.command(MOVE, CommandState.APPLIED, "a0000001", rev=1, before="0.85", after="0.9", reason="too low",
                   on_behalf_of=ANN)  # fmt: skip
    script.command(Annotate("=HYPERLINK(1)"), CommandState.APPLIED, "a0000002", rev=2, after="=HYPERLINK(1)")
    script.refuse(ForcePhase(Phase.PREDICT), Refusal.PRECONDITION, "calm (last divergence 3 steps ago)")
    return script


def test_the_audit_is_filtered_by_actor_state_and_words() -> None:
    seen = snapshot(audited())
    assert [entry.state for entry in audit(seen)] == ["rejected", "applied", "applied", "accepted"]
    assert [entry.command_id for entry in audit(seen, state="applied", words="TOO LOW")] == ["a0000001"]
    assert audit(seen, by="somebody") == []
    assert [entry.actor for entry in audit(seen, by=f"operator for {ANN}")] == ["operator"]
    assert len(audit(seen, by="operator")) == 3, "the key alone is another than the key on somebody's behalf"
    (refused,) = audit(seen, words="last divergence")
    assert refused.detail.startswith("calm")


def test_the_audit_as_a_file_says_the_same_and_runs_nothing() -> None:
    entries = audit(snapshot(audited()))
    rows = list(csv.DictReader(io.StringIO(as_csv(entries))))
    assert len(rows) == 4
    assert (rows[2]["before"], rows[2]["after"], rows[2]["reason"]) == ("0.85", "0.9", "too low")
    assert (rows[2]["actor"], rows[2]["on_behalf_of"]) == ("operator", ANN)
    assert rows[1]["after"] == "'=HYPERLINK(1)"
