"""Claims about commands: each ends once, says before and after, and a refused one has changed nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.rig import Rig, covered
from trainer_core.engine.checkpoints import Checkpoints, Entry
from trainer_core.engine.snapshot import copied
from trainer_core.spec.commands import (
    AcknowledgeAlert,
    Annotate,
    ApplyRemedy,
    Command,
    CommandState,
    ForcePhase,
    LockPrediction,
    Pause,
    Refusal,
    Resume,
    Rollback,
    SaveCheckpoint,
    ScaleLearningRate,
    SetGradientClip,
    SetLearningRate,
    SetPhaseLength,
    SetThreshold,
    SetWeightDecay,
    SilenceAlert,
    Stop,
)
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import (
    AlertRaised,
    Annotated,
    AttemptStarted,
    CheckpointSaved,
    PhaseChanged,
    PredictionEnded,
    RunState,
    StepRecord,
)

APPLIED, REJECTED = CommandState.APPLIED, CommandState.REJECTED
FULL_LIFE = [CommandState.APPLYING, APPLIED]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A run in its first FULL phase, two steps in."""
    return Rig(tmp_path).begin().until_phase(Phase.FULL, 2)


@pytest.mark.parametrize(
    ("command", "before", "after"),
    [
        (ForcePhase(Phase.FULL), "FULL", "FULL (begun anew)"),
        (SetThreshold("confidence_threshold", 0.91), "0", "0.91"),
        (SetThreshold("divergence_threshold", 2.5), "100", "2.5"),
        (SetPhaseLength(Phase.FULL, 9), "4", "9"),
        (SetPhaseLength(Phase.PREDICT, 7), "6", "7"),
        (SetPhaseLength(Phase.CORRECT, 3), "2", "3"),
        (SetGradientClip(0.5), "0", "0.5"),
        (SetLearningRate(1e-4), "0.003", "0.0001"),
        (ScaleLearningRate(0.5), "0.003", "0.0015"),
        (SetWeightDecay(0.2), "0.01", "0.2"),
        (LockPrediction(True), "unlocked", "locked"),
        (SaveCheckpoint(), None, "step-000007"),
        (SilenceAlert("loss deviation", 50), None, "silent until step 57"),
        (Annotate("what is this bump?"), None, "what is this bump?"),
        (Rollback(), "step 7", "step 0 (step-000000)"),
        (Stop(), "running", "stopped"),
    ],
    ids=lambda x: type(x).__name__ if not isinstance(x, str | None) else "",
)
def test_a_command_is_applied_at_the_boundary_and_says_before_and_after(
    rig: Rig, command: Command, before: str | None, after: str
) -> None:
    command_id = rig.send(command, reason="because")
    rig.session.commands()
    assert rig.states(command_id) == FULL_LIFE
    last = rig.life(command_id)[-1]
    assert (last.before, last.after, last.actor, last.reason) == (before, after, "ann", "because")
    assert last.state_rev == rig.engine.state_rev == 1


def test_whom_a_command_is_for_stands_beside_the_key_and_never_in_its_place(rig: Rig) -> None:
    last = rig.tell(Annotate("odd"), on_behalf_of="“trainer” (name as typed)")
    assert (last.actor, last.on_behalf_of, last.by) == (
        "ann", "“trainer” (name as typed)", "ann for “trainer” (name as typed)",
    )  # fmt: skip
    assert [note.actor for note in rig.of(Annotated)] == [last.by]
    assert rig.tell(Annotate("plain")).by == "ann"


def test_an_alert_that_no_rule_raised_is_acknowledged_while_it_is_open(rig: Rig) -> None:
    rig.session.alert_open = {"journal-1"}.__contains__
    assert rig.tell(AcknowledgeAlert("journal-1")).state is APPLIED
    assert rig.tell(AcknowledgeAlert("journal-2")).state is REJECTED


def test_what_was_set_holds_for_the_steps_that_follow(rig: Rig) -> None:
    rig.tell(SetLearningRate(1e-4))
    rig.tell(SetWeightDecay(0.3))
    rig.tell(SetThreshold("confidence_threshold", 1.0))
    record = rig.step()
    assert record.learning_rate == pytest.approx(1e-4)
    assert rig.step().learning_rate == pytest.approx(1e-4)
    assert rig.optimizer.param_groups[0]["weight_decay"] == 0.3
    rig.until_step(40)
    assert rig.engine.phase is Phase.FULL, "no confidence is above 1"


def test_a_note_and_a_checkpoint_are_records_of_their_own(rig: Rig) -> None:
    rig.tell(Annotate("here"))
    rig.tell(SaveCheckpoint())
    assert rig.of(Annotated) == [Annotated(7, "here", "ann")]
    saved = rig.of(CheckpointSaved)[-1]
    assert (saved.step, saved.good, saved.because) == (7, True, "asked for by ann")


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (ForcePhase(Phase.WARMUP), "there is no way from FULL to WARMUP"),
        (ForcePhase(Phase.CORRECT), "there is no way from FULL to CORRECT"),
        (SetThreshold("confidence_threshold", 1.5), "from 0 to 1"),
        (SetThreshold("confidence_threshold", float("nan")), "from 0 to 1"),
        (SetThreshold("warmup_steps", 5), "cannot be changed while training runs"),
        (SetThreshold("nonsense", 5), "no such setting"),
        (SetThreshold("gradient_norm_high", 500.0), "gradient_norm_extreme_high"),
        (SetPhaseLength(Phase.WARMUP, 5), "cannot be changed while training runs"),
        (SetGradientClip(1e9), "from 0 to"),
        (SetLearningRate(1e6), "outside 0 to 100"),
        (ScaleLearningRate(float("inf")), "outside 0 to 100"),
        (SetWeightDecay(11.0), "from 0 to 10"),
        (Rollback("step-999999"), "there is no checkpoint step-999999; there are: step-000000"),
        (Rollback("../secret"), "there is no checkpoint"),
        (AcknowledgeAlert("alert-0-9"), "no open alert alert-0-9"),
        (SilenceAlert("nonsense", 5), "no alert rule called nonsense"),
        (ApplyRemedy("nonsense"), "there is no remedy nonsense"),
    ],
    ids=lambda x: type(x).__name__ if not isinstance(x, str) else "",
)
def test_a_refused_command_says_why_and_changes_nothing(rig: Rig, command: Command, why: str) -> None:
    def everything() -> tuple[Any, ...]:
        e = rig.engine
        return e.config, e.schedule.scale, e.step_count, e.phase, e.probe_at, e.locked, e.state_rev, e.attempt

    before, weights, optimizer = everything(), rig.weights(), copied(rig.optimizer.state_dict()["param_groups"])
    ended = rig.tell(command)
    assert (ended.state, ended.refusal) == (REJECTED, Refusal.PRECONDITION)
    assert why in ended.detail and "\n" not in ended.detail
    assert everything() == before
    assert torch.equal(rig.weights(), weights)
    assert rig.optimizer.state_dict()["param_groups"] == optimizer


def test_force_full_is_taken_from_every_phase_and_judges_a_prediction(tmp_path: Path) -> None:
    for phase in (Phase.WARMUP, Phase.PREDICT, Phase.CORRECT):
        rig = Rig(tmp_path / phase).begin().until_phase(phase)
        ended = rig.tell(ForcePhase(Phase.FULL))
        assert (ended.state, ended.before, ended.after) == (APPLIED, phase.value, "FULL")
        assert len(rig.of(PredictionEnded)) == (phase is not Phase.WARMUP)
        change = rig.of(PhaseChanged)[-1]
        assert (change.to_phase, change.because) == (Phase.FULL, ("asked for by an operator",))
        assert rig.step().phase is Phase.FULL


def test_force_predict_probes_first_and_is_refused_while_locked(rig: Rig) -> None:
    rig.tell(LockPrediction(True))
    refused = rig.tell(ForcePhase(Phase.PREDICT))
    assert refused.state is REJECTED and "locked by an operator" in refused.detail
    rig.tell(LockPrediction(False))
    assert rig.tell(ForcePhase(Phase.PREDICT)).state is APPLIED
    assert rig.step().phase is Phase.PREDICT
    again = rig.tell(ForcePhase(Phase.PREDICT))
    assert again.state is REJECTED and "a prediction is under way" in again.detail
    assert rig.tell(ForcePhase(Phase.CORRECT)).state is APPLIED
    assert rig.step().phase is Phase.CORRECT
    covered(rig.records)


def test_locked_prediction_stays_in_full_until_unlocked(rig: Rig) -> None:
    rig.tell(LockPrediction(True))
    rig.until_step(60)
    assert rig.engine.phase is Phase.FULL and not rig.engine.predictions_entered
    rig.tell(LockPrediction(False))
    rig.until_phase(Phase.PREDICT)


def test_a_command_waits_for_its_step_and_is_refused_when_that_has_passed(rig: Rig) -> None:
    later = rig.send(Annotate("at 9"), at_step=9)
    late = rig.send(Annotate("too late"), at_step=3)
    rig.session.commands()
    assert rig.states(later) == []
    assert rig.states(late) == [REJECTED]
    assert rig.life(late)[0].detail == "step 3 has passed; the run is at step 7"
    rig.step()
    assert rig.states(later) == FULL_LIFE
    assert rig.life(later)[-1].step == 8, "the boundary before step 9"


def test_a_command_expires_by_the_clock_and_not_before(rig: Rig) -> None:
    kept, expired = rig.send(Annotate("kept"), ttl_s=20), rig.send(Annotate("expired"), ttl_s=5)
    rig.now += 10
    rig.session.commands()
    assert rig.states(kept) == FULL_LIFE
    assert rig.states(expired) == [CommandState.EXPIRED]
    assert rig.engine.state_rev == 1


def test_a_stale_command_is_a_conflict(rig: Rig) -> None:
    rig.tell(SetThreshold("confidence_threshold", 0.5), expect_state_rev=0)
    stale = rig.tell(SetThreshold("confidence_threshold", 0.6), expect_state_rev=0)
    assert (stale.state, stale.refusal) == (REJECTED, Refusal.CONFLICT)
    assert "state_rev is 1, 0 was expected" in stale.detail
    assert rig.engine.config.hybrid_trainer_config.confidence_threshold == 0.5
    assert rig.tell(SetThreshold("confidence_threshold", 0.6), expect_state_rev=1).state is APPLIED


def test_a_paused_run_takes_commands_and_goes_on_when_told(tmp_path: Path) -> None:
    waits: list[int] = []

    def wait(rig: Rig) -> None:
        waits.append(1)
        if len(waits) == 3:
            rig.send(SetThreshold("confidence_threshold", 0.5))
        if len(waits) == 6:
            assert rig.engine.config.hybrid_trainer_config.confidence_threshold == 0.5
            rig.send(Resume())

    rig = Rig(tmp_path, wait=wait).begin().until_step(3)
    paused = rig.tell(Pause())
    assert len(waits) == 6
    assert (paused.state, paused.before, paused.after) == (APPLIED, "running", "paused")
    assert [s.state for s in rig.of(RunState)] == ["running", "paused", "running"]
    assert {s.step for s in rig.of(RunState)[1:]} == {3}
    assert rig.step().step == 4


def test_a_run_can_be_stopped_while_it_is_paused(tmp_path: Path) -> None:
    rig = Rig(tmp_path, wait=lambda rig: rig.send(Stop())).begin().until_step(3)
    rig.tell(Pause())
    rig.session.close()
    assert rig.session.ended == ("stopped", "stopped by ann")
    assert [s.state for s in rig.of(RunState)] == ["running", "paused", "stopped"]
    assert rig.of(CheckpointSaved)[-1].step == 3


def test_a_stop_ends_what_waits_behind_it(rig: Rig) -> None:
    stop, behind, later = rig.send(Stop()), rig.send(Annotate("x")), rig.send(Annotate("y"), at_step=90)
    rig.session.commands()
    assert rig.states(stop) == FULL_LIFE
    assert rig.states(behind) == rig.states(later) == [CommandState.SUPERSEDED]
    assert rig.life(later)[0].detail == f"by {stop}"
    assert not rig.of(Annotated)


SUPERSEDING: list[tuple[Command, Command, bool]] = [
    (SetThreshold("confidence_threshold", 0.5), SetThreshold("confidence_threshold", 0.6), True),
    (SetThreshold("confidence_threshold", 0.5), SetThreshold("divergence_threshold", 2.0), False),
    (SetThreshold("full_steps", 9), SetPhaseLength(Phase.FULL, 8), True),
    (SetThreshold("gradient_clip_norm", 3.0), SetGradientClip(2.0), True),
    (SetThreshold("optimizer.gradient_clip_norm", 3.0), SetThreshold("gradient_clip_norm", 2.0), True),
    (SetWeightDecay(0.1), SetWeightDecay(0.2), True),
    (SetLearningRate(1e-3), SetLearningRate(2e-3), True),
    (SetLearningRate(1e-3), ScaleLearningRate(2.0), False),
    (ScaleLearningRate(2.0), ScaleLearningRate(3.0), False),
    (LockPrediction(True), LockPrediction(False), True),
    (Pause(), Resume(), True),
    (Annotate("a"), Annotate("b"), False),
]


@pytest.mark.parametrize(("older", "newer", "superseded"), SUPERSEDING, ids=lambda x: str(x)[:40])
def test_of_two_settings_of_one_thing_that_wait_the_newer_holds(
    rig: Rig, older: Command, newer: Command, superseded: bool
) -> None:
    first, second = rig.send(older), rig.send(newer)
    rig.session.commands()
    assert rig.states(first) == ([CommandState.SUPERSEDED] if superseded else FULL_LIFE)
    assert rig.states(second) == FULL_LIFE
    assert not superseded or rig.life(first)[-1].detail == f"by {second}"


def test_a_newer_setting_for_an_earlier_boundary_ends_the_older_and_one_for_a_later_does_not(rig: Rig) -> None:
    earlier, later = (rig.send(SetThreshold("confidence_threshold", v), at_step=s) for v, s in ((0.3, 9), (0.4, 11)))
    rig.session.commands()
    now = rig.send(SetThreshold("confidence_threshold", 0.2))
    after = rig.send(SetThreshold("confidence_threshold", 0.5), at_step=12)
    rig.session.commands()
    assert rig.states(now) == FULL_LIFE
    assert rig.states(earlier) == rig.states(later) == [CommandState.SUPERSEDED]
    assert rig.states(after) == [], "it was accepted later"
    rig.until(lambda: rig.states(after) == FULL_LIFE)
    assert rig.engine.config.hybrid_trainer_config.confidence_threshold == 0.5


def test_settings_for_different_steps_each_have_their_turn(rig: Rig) -> None:
    names = [rig.send(SetThreshold("confidence_threshold", step / 100), at_step=step) for step in (9, 10, 11)]
    rig.until(lambda: all(rig.states(name) == FULL_LIFE for name in names))


@pytest.mark.parametrize(
    ("newer", "ends"),
    [
        ({"command": SetThreshold("confidence_threshold", 1.5)}, REJECTED),
        ({"expect_state_rev": 7}, REJECTED),
        ({"at_step": 3}, REJECTED),
        ({"ttl_s": 1e-9}, CommandState.EXPIRED),
    ],
    ids=str,
)
def test_a_newer_setting_that_is_not_applied_supersedes_nothing(
    rig: Rig, newer: dict[str, Any], ends: CommandState
) -> None:
    older = rig.send(SetThreshold("confidence_threshold", 0.3))
    given = {"command": SetThreshold("confidence_threshold", 0.4)} | newer
    refused = rig.send(given.pop("command"), **given)
    rig.now += 1.0
    rig.session.commands()
    assert (rig.states(refused)[-1], rig.states(older)) == (ends, FULL_LIFE)
    assert rig.engine.config.hybrid_trainer_config.confidence_threshold == 0.3


def test_of_two_operators_who_saw_the_same_state_the_first_is_obeyed(rig: Rig) -> None:
    names = [rig.send(SetThreshold("confidence_threshold", v), expect_state_rev=0) for v in (0.3, 0.4)]
    rig.session.commands()
    assert rig.states(names[0]) == FULL_LIFE
    assert (rig.states(names[1]), rig.life(names[1])[-1].refusal) == ([REJECTED], Refusal.CONFLICT)


def test_a_one_shot_between_two_settings_is_carried_out_under_the_older(rig: Rig) -> None:
    locked, forced, unlocked = (
        rig.send(c) for c in (LockPrediction(True), ForcePhase(Phase.PREDICT), LockPrediction(False))
    )
    rig.session.commands()
    assert rig.states(locked) == rig.states(unlocked) == FULL_LIFE
    assert "locked by an operator" in rig.life(forced)[-1].detail


def test_a_pause_ends_an_earlier_waiting_resume(tmp_path: Path) -> None:
    rig = Rig(tmp_path, wait=lambda rig: rig.send(Resume())).begin().until_step(3)
    waiting = rig.send(Resume(), at_step=50)
    rig.tell(Pause())
    assert rig.states(waiting) == [CommandState.SUPERSEDED]


class SlowDisk(Checkpoints):
    """Takes ``seconds`` of the rig's clock to save or to read; ``meanwhile`` is what operators do then."""

    rig: Rig
    seconds = 5.0
    meanwhile: Callable[[], object]

    def save(self, *arguments: Any, **more: Any) -> Entry:
        self._takes_its_time()
        return super().save(*arguments, **more)

    def load(self, *arguments: Any, **more: Any) -> tuple[Entry, dict[str, Any], dict[str, Any]]:
        self._takes_its_time()
        return super().load(*arguments, **more)

    def _takes_its_time(self) -> None:
        self.rig.now += self.seconds / 2
        self.meanwhile()
        self.rig.now += self.seconds / 2


def slow(folder: Path, seconds: float, meanwhile: Callable[[Rig], object]) -> Rig:
    """A run whose disk is slow from its first step on."""
    rig = Rig(folder, steps=60).begin().until_step(3)
    disk = SlowDisk(folder, 3)
    disk.rig, disk.seconds, disk.meanwhile = rig, seconds, lambda: meanwhile(rig)
    rig.session.checkpoints = disk
    return rig


@pytest.mark.parametrize("command", [SaveCheckpoint(), Rollback()], ids=["checkpoint", "rollback"])
def test_during_a_checkpoint_or_rollback_only_pause_and_stop_are_taken(tmp_path: Path, command: Command) -> None:
    names: list[str] = []
    given = (SetThreshold("confidence_threshold", 0.5), Annotate("x"), Resume(), Rollback(), Pause(), Stop())
    rig = slow(tmp_path, 5.0, lambda rig: names or names.extend(rig.send(c) for c in given))
    before = rig.send(Annotate("before"))
    asked = rig.tell(command)
    rig.session.commands()
    *refused, paused, stopped = names
    for name in refused:
        last = rig.life(name)[-1]
        assert (last.state, last.refusal) == (REJECTED, Refusal.PRECONDITION)
        assert last.detail.endswith("(5.0 s): only pause and stop are taken then; give it again")
        assert "a checkpoint was being" in last.detail
    assert asked.state is APPLIED and rig.states(before) == FULL_LIFE
    assert rig.states(paused) == rig.states(stopped) == FULL_LIFE
    assert rig.session.ended == ("stopped", "stopped by ann")


def test_a_short_checkpoint_refuses_nobody(tmp_path: Path) -> None:
    rig = slow(tmp_path, 0.5, lambda rig: rig.send(Annotate("in passing")))
    rig.tell(SaveCheckpoint())
    rig.session.commands()
    assert [note.text for note in rig.of(Annotated)] == ["in passing"]


def test_a_command_that_still_waits_when_the_run_ends_is_refused(tmp_path: Path) -> None:
    rig = Rig(tmp_path, steps=20).begin()
    waiting = rig.send(Annotate("never"), at_step=90)
    rig.finish()
    ended = rig.life(waiting)[-1]
    assert (ended.state, ended.refusal, ended.detail) == (REJECTED, Refusal.RUN, "the run has finished")


def test_a_remedy_is_applied_whole(rig: Rig) -> None:
    ended = rig.tell(ApplyRemedy("gradient_explosion"))
    assert ended.after == "set-gradient-clip -> 1; scale-learning-rate -> 0.0015"
    assert rig.engine.config.optimizer.gradient_clip_norm == 1.0
    assert rig.engine.schedule.scale == 0.5
    assert rig.engine.state_rev == 1, "one command, one revision"


def test_a_remedy_whose_second_half_is_refused_leaves_nothing_of_its_first(rig: Rig) -> None:
    for folder in rig.folder.iterdir():
        (folder / "done.json").unlink()
    config, scale = rig.engine.config, rig.engine.schedule.scale
    ended = rig.tell(ApplyRemedy("nan_loss"))
    assert ended.state is REJECTED and "no good checkpoint" in ended.detail
    assert (rig.engine.config, rig.engine.schedule.scale, rig.engine.attempt) == (config, scale, 0)
    assert rig.optimizer.param_groups[0]["lr"] == pytest.approx(3e-3)


def test_a_rollback_is_a_new_attempt_that_keeps_what_operators_set(tmp_path: Path) -> None:
    rig = Rig(tmp_path).begin().until_step(6)
    rig.tell(SaveCheckpoint())
    kept = rig.weights()
    rig.until_step(20)
    rig.tell(SetThreshold("confidence_threshold", 0.2))
    rig.tell(SetWeightDecay(0.4))
    rig.tell(ScaleLearningRate(0.5))
    batches = rig.engine.batches
    ended = rig.tell(Rollback("step-000006"))
    assert (ended.state, ended.before, ended.after) == (APPLIED, "step 20", "step 6 (step-000006)")
    assert torch.equal(rig.weights(), kept)
    assert rig.of(AttemptStarted)[0].abandoned_step == 20
    record = rig.step()
    assert (record.step, record.batch, rig.records[-1][1]) == (7, batches + 1, 1)
    assert rig.engine.config.hybrid_trainer_config.confidence_threshold == 0.2
    assert rig.optimizer.param_groups[0]["weight_decay"] == 0.4
    assert record.learning_rate == pytest.approx(1.5e-3)
    assert covered(rig.records) == {0: (1, 20), 1: (7, 7)}


def test_an_undone_prediction_keeps_the_weight_decay_that_was_set_in_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path).begin().until_phase(Phase.PREDICT, 2)
    rig.tell(SetWeightDecay(0.4))
    rig.engine.parameters.add(torch.full((rig.engine.parameters.count,), 9.0))  # the prediction is ruined
    rig.tell(ForcePhase(Phase.FULL))
    assert rig.of(PredictionEnded)[-1].kept is False
    assert rig.optimizer.param_groups[0]["weight_decay"] == 0.4


@pytest.mark.parametrize("steps", [3, 9])
def test_a_window_that_a_rollback_brings_back_has_the_length_that_holds_now(tmp_path: Path, steps: int) -> None:
    rig = Rig(tmp_path, full_steps=6).begin().until_phase(Phase.FULL, 1)
    name = rig.session.save_checkpoint("within FULL").name
    rig.step()
    assert rig.tell(Rollback(name)).state is APPLIED
    assert rig.engine.phase_budget == 6
    assert rig.tell(SetPhaseLength(Phase.FULL, steps)).state is APPLIED
    assert rig.tell(Rollback(name)).state is APPLIED
    assert rig.engine.phase_budget == steps
    attempt = rig.engine.attempt
    rig.until(lambda: rig.engine.phase is Phase.PREDICT)
    window = [r for r, of in rig.records if isinstance(r, StepRecord) and r.phase is Phase.FULL and of == attempt]
    assert len(window) == steps - 1, "the checkpoint holds the first of them"


def test_a_rollback_in_the_middle_of_a_prediction_closes_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path).begin().until_phase(Phase.PREDICT, 3)
    rig.tell(Rollback())
    ended = rig.of(PredictionEnded)
    assert [(e.kept, e.because) for e in ended] == [(False, "rolled back by ann")]
    assert rig.engine.flight is None
    rig.until_step(30)
    e = rig.engine
    assert e.predictions_entered - e.predictions_kept - e.predictions_undone == (e.flight is not None)


def test_an_alert_is_raised_once_acknowledged_and_resolved(tmp_path: Path) -> None:
    rig = Rig(tmp_path, gradient_norm_low=0.0, gradient_norm_extreme_low=0.0, gradient_norm_high=0.001).begin()
    rig.tell(LockPrediction(True))
    rig.until(lambda: bool(rig.of(AlertRaised)))
    alert = rig.of(AlertRaised)[0]
    assert (alert.step, alert.rule, alert.signal, alert.limit) == (3, "gradient norm", "grad_norm", 0.001)
    assert alert.severity.name == "WARNING" and alert.remedy == "gradient_explosion"
    assert rig.tell(AcknowledgeAlert(alert.alert_id)).after == "acknowledged"
    rig.until_step(20)
    assert [a.alert_id for a in rig.of(AlertRaised) if a.rule == alert.rule] == [alert.alert_id]
    rig.tell(SetThreshold("gradient_norm_high", 90.0))
    rig.until_step(35)
    assert rig.tell(AcknowledgeAlert(alert.alert_id)).state is REJECTED, "it was resolved"
    assert rig.of(StepRecord)[-1].phase is Phase.FULL


def test_remedies_multiply_the_weight_decay_that_the_optimizer_has(tmp_path: Path) -> None:
    """Not the configuration's, which never was this optimizer's: ten times 0.01 lowered the 0.5. Biases have none."""

    def grouped(ps: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        flat = [p for p in ps if p.dim() < 2]
        deep = [p for p in ps if p.dim() > 1]
        return torch.optim.AdamW([{"params": flat, "weight_decay": 0.0}, {"params": deep, "weight_decay": 0.5}], 3e-3)

    rig = Rig(tmp_path, optimizer=grouped).begin()
    assert rig.engine.config.optimizer.weight_decay == 0.5
    remedy = rig.tell(ApplyRemedy("overfitting"))
    assert (remedy.before, remedy.after) == ("set-weight-decay 0.5", "set-weight-decay -> 5")
    assert rig.tell(SetWeightDecay(0.2)).before == "5" and rig.engine.config.optimizer.weight_decay == 0.2


def test_a_full_phase_begun_anew_asks_for_its_own_steps(tmp_path: Path) -> None:
    rig = Rig(tmp_path, confidence_threshold=1.0).begin().until_phase(Phase.FULL, 6)
    assert rig.engine.signals().full_needed == 8, "four, and four more after the refusal"
    rig.tell(ForcePhase(Phase.FULL))
    assert (rig.engine.steps_in_phase, rig.engine.signals().full_needed) == (0, 4)
