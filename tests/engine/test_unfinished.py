"""Claims about the commands of earlier processes: each has its end after a restart, and no other effect than it had."""

import time
from pathlib import Path

from tests.engine.rig import Rig
from trainer_core.resuming import History, unfinished_business
from trainer_core.spec.commands import (
    AcceptedCommand,
    Annotate,
    ApplyRemedy,
    Command,
    CommandRequest,
    CommandState,
    Pause,
    Resume,
    Rollback,
    ScaleLearningRate,
    SetThreshold,
    Stop,
)
from trainer_core.spec.records import CommandChanged, PredictedStretch

SAVED = 100
"""Seq of the checkpoint's row."""


def accepted(
    name: str, command: Command, age: float = 0.0, ttl: float = 3600.0, at: int | None = None
) -> AcceptedCommand:
    """A command that somebody gave ``age`` seconds ago."""
    return AcceptedCommand(CommandRequest(name, command, ttl_s=ttl, at_step=at), "ada", time.time() - age)


def resumed(folder: Path, commands: list[AcceptedCommand], applied_at: dict[str, int]) -> Rig:
    """A run that goes on from its checkpoint with these commands of an earlier process."""
    rig = Rig(folder, steps=200).begin().until_step(6)
    states = dict.fromkeys(applied_at, CommandState.APPLIED)
    history = History(accepted=tuple(commands), applied_at=applied_at, states=states, saved_at={"last": SAVED})
    unfinished_business(rig.session.inbox, history, "last")
    return rig


def ends(rig: Rig, name: str) -> list[CommandChanged]:
    return [r for r in rig.of(CommandChanged) if r.command_id == name and r.state.final]


def test_what_was_applied_is_applied_again_in_the_order_in_which_it_was_and_however_old(tmp_path: Path) -> None:
    first, second = (
        accepted(n, SetThreshold("confidence_threshold", v), 9e4, 5.0) for n, v in (("a", 0.7), ("b", 0.9))
    )
    rig = resumed(tmp_path, [first, second], {"a": SAVED + 8, "b": SAVED + 3})
    rig.step()
    assert [r.command_id for r in rig.of(CommandChanged) if r.state is CommandState.APPLIED] == ["b", "a"]
    assert rig.engine.config.hybrid_trainer_config.confidence_threshold == 0.7


def test_what_the_checkpoint_holds_is_not_applied_again(tmp_path: Path) -> None:
    rig = resumed(tmp_path, [accepted("a", SetThreshold("confidence_threshold", 0.7))], {"a": SAVED - 1})
    rig.step()
    assert not ends(rig, "a") and rig.engine.config.hybrid_trainer_config.confidence_threshold != 0.7


def test_a_checkpoint_whose_own_row_was_lost_holds_all_that_the_journal_has(tmp_path: Path) -> None:
    rig = Rig(tmp_path, steps=200).begin().until_step(6)
    halved = accepted("half", ScaleLearningRate(0.5))
    history = History(
        accepted=(halved,), applied_at={"half": 7}, states={"half": CommandState.APPLIED}, last_seq=9, saved_at={"a": 3}
    )
    unfinished_business(rig.session.inbox, history, "a-later-one")
    rig.step()
    assert rig.engine.schedule.scale == 1.0, "it would be halved twice"
    unfinished_business(rig.session.inbox, history, None)
    rig.step()
    assert rig.engine.schedule.scale == 0.5, "nothing was saved: all of it is done again"


def test_a_pause_that_held_is_a_pause_again_whatever_was_saved_in_it_and_a_stop_ended_it(tmp_path: Path) -> None:
    given: list[Command] = [Pause(), Resume(), Pause(), Stop()]
    names = ["one", "two", "three", "stop"]
    for count, paused in ((1, True), (2, False), (3, True), (4, False)):
        commands = [accepted(name, command) for name, command in zip(names[:count], given, strict=False)]
        rig = resumed(tmp_path / str(count), commands, {name: n for n, name in enumerate(names[:count])})
        rig.session.inbox.apply_due()
        assert rig.session.paused is paused


def test_what_was_never_applied_expires_as_it_would_have(tmp_path: Path) -> None:
    rig = resumed(tmp_path, [accepted("old", SetThreshold("confidence_threshold", 0.7), age=9e4, ttl=5.0)], {})
    rig.step()
    assert [r.state for r in ends(rig, "old")] == [CommandState.EXPIRED]
    assert rig.engine.config.hybrid_trainer_config.confidence_threshold != 0.7


def test_a_command_for_a_later_step_waits_for_it(tmp_path: Path) -> None:
    rig = resumed(tmp_path, [accepted("later", SetThreshold("confidence_threshold", 0.7), at=20)], {})
    rig.until_step(12)
    assert not ends(rig, "later")
    rig.until(lambda: bool(ends(rig, "later")))
    ended = ends(rig, "later")[0]
    assert ended.state in (CommandState.APPLIED, CommandState.REJECTED) and ended.step >= 19


def test_a_prediction_that_jumps_over_its_step_does_not_make_a_command_late(tmp_path: Path) -> None:
    rig = Rig(tmp_path, policy="adaptive", steps=300, confidence_threshold=0.5, min_predict_steps=2).begin()
    rig.until_step(6)
    names = [rig.send(Annotate(f"at {step}"), at_step=step) for step in range(20, 120)]
    rig.until(lambda: rig.engine.step_count > 130)
    jumped = [r for r in rig.of(PredictedStretch) if r.last_step > r.first_step and r.first_step < 120]
    assert jumped, "no prediction jumped over a step"
    assert all(rig.life(name)[-1].state is CommandState.APPLIED for name in names)


def test_a_remedy_the_checkpoint_does_not_hold_says_that_it_is_lost(tmp_path: Path) -> None:
    rig = resumed(tmp_path, [accepted("r", ApplyRemedy("raise_learning_rate"))], {"r": SAVED + 1})
    rig.step()
    ended = ends(rig, "r")
    assert [r.state for r in ended] == [CommandState.UNDONE_BY_RESTART] and "apply it again" in ended[0].detail


def test_a_one_shot_that_had_not_ended_is_never_carried_out(tmp_path: Path) -> None:
    rig = resumed(tmp_path, [accepted("back", Rollback())], {})
    assert [r.state for r in ends(rig, "back")] == [CommandState.UNDONE_BY_RESTART]


def test_the_trainers_own_pause_supersedes_nothing_that_was_not_queued(tmp_path: Path) -> None:
    rig = Rig(tmp_path, steps=200).begin().until_step(6)
    assert rig.session.inbox.carry_out(Pause(), "a remedy") and rig.session.paused
    assert rig.session.inbox.carry_out(Resume(), "a remedy") and not rig.session.paused
