"""Claims about checkpoints: whole or not there, damaged ones passed over, and a resume goes on bit for bit."""

import contextlib
import itertools
import json
import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.rig import Rig, network, same
from trainer_core.engine.checkpoints import Checkpoints
from trainer_core.resuming import attempt_of
from trainer_core.spec.commands import Pause, SetThreshold
from trainer_core.spec.errors import CheckpointError
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import (
    AlertRaised,
    AlertResolved,
    AttemptStarted,
    CheckpointSaved,
    CheckpointSkipped,
    RunState,
    StepRecord,
    ValidationMeasured,
)

CPU = torch.device("cpu")


def truncate(folder: Path) -> None:
    """Half a weights file."""
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-40])


def flip(folder: Path) -> None:
    """One wrong byte."""
    file = folder / "state.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x40
    file.write_bytes(bytes(content))


def unmark(folder: Path) -> None:
    """No done marker: the writer was killed."""
    (folder / "done.json").unlink()


def garble(folder: Path) -> None:
    """A done marker that is no JSON."""
    (folder / "done.json").write_text('{"format": 1, "st')


def lose(folder: Path) -> None:
    """A file is missing."""
    (folder / "state.pt").unlink()


def outdate(folder: Path) -> None:
    """A checkpoint of another version."""
    done = json.loads((folder / "done.json").read_text())
    (folder / "done.json").write_text(json.dumps(done | {"format": 99}))


DAMAGE = [truncate, flip, unmark, garble, lose, outdate]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_a_damaged_checkpoint_is_skipped_with_a_record_and_the_one_before_is_used(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    rig = Rig(tmp_path, checkpoint_every=4).begin().until_step(9)
    damage(tmp_path / "step-000008")
    resumed = Rig(tmp_path, checkpoint_every=4)
    entry = resumed.session.resume(0, 9, "resumed")
    assert entry.name == "step-000004"
    skipped = {s.name: s.because for s in resumed.of(CheckpointSkipped)}
    assert list(skipped) == ["step-000008"]
    assert any(word in skipped["step-000008"] for word in ("damaged", "unfinished", "format 99"))
    assert "\n" not in skipped["step-000008"]
    assert resumed.of(AttemptStarted)[0].checkpoint == "step-000004"
    assert rig.engine.step_count == 9


def test_a_damaged_checkpoint_asked_for_by_name_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    rig = Rig(tmp_path, checkpoint_every=4).begin().until_step(9)
    flip(tmp_path / "step-000008")
    weights = rig.weights()
    with pytest.raises(CheckpointError, match=r"step-000008 is damaged: state\.pt is not what was written"):
        rig.session.roll_back("step-000008", "asked")
    assert torch.equal(rig.weights(), weights) and rig.engine.attempt == 0


def test_when_every_checkpoint_is_damaged_the_resume_is_refused(tmp_path: Path) -> None:
    Rig(tmp_path, checkpoint_every=4).begin().until_step(9)
    for folder in tmp_path.iterdir():
        truncate(folder)
    with pytest.raises(CheckpointError, match="no checkpoint to go back to"):
        Rig(tmp_path).session.resume(0, 9, "resumed")


def test_a_write_that_was_interrupted_is_not_a_checkpoint_and_is_in_nobodys_way(tmp_path: Path) -> None:
    rig = Rig(tmp_path).begin().until_step(3)
    half = tmp_path / ".tmp-step-000003"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    assert rig.session.checkpoints.names() == ["step-000000"]
    rig.session.save_checkpoint("again")
    assert not half.exists()
    assert rig.session.checkpoints.names() == ["step-000000", "step-000003"]


def test_old_checkpoints_go_but_never_the_newest_good_one(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, keep_last=2)
    model = network()
    for step, good in [(1, True), (2, True), (3, False), (4, False), (5, False)]:
        store.save(model, {"step": step}, step, 0, good)
    assert store.names() == ["step-000002", "step-000004", "step-000005"]
    assert store.load_newest(CPU, good=True)[0].step == 2
    assert store.load_newest(CPU, good=False)[0].step == 5


def test_spaced_ones_reach_back_in_time_however_fast_the_newest_go(tmp_path: Path) -> None:
    now = [1_000_000.0]
    store = Checkpoints(tmp_path, keep_last=3, keep_spaced=True, clock=lambda: now[0])
    model, born, there = network(), {}, set()
    for step in range(400):  # half an hour, one every 5 s
        entry = store.save(model, {}, step, 0, True)
        born[entry.name] = now[0]
        there = (there | {entry.name}) - set(entry.removed)
        assert there == set(store.names()), "what is removed is told"
        assert len(there) <= 3 + 3
        ages = sorted(now[0] - born[name] for name in there)
        elapsed = now[0] - 1_000_000.0
        assert elapsed < 60 or any(60 <= age < 660 for age in ages)
        assert elapsed < 1260 or any(age >= 600 for age in ages)
        now[0] += 5.0


def test_spaced_ones_were_not_given_up_by_a_rollback(tmp_path: Path) -> None:
    now = [0.0]
    store = Checkpoints(tmp_path, keep_last=1, keep_spaced=True, clock=lambda: now[0])
    store.save(network(), {}, 0, 0, True)
    now[0] = 280.0
    store.save(network(), {}, 200, 0, True)
    assert store.names() == ["step-000000", "step-000200"]
    store.began(1, 0, 0)  # back to step 0
    now[0] = 300.0
    saved = store.save(network(), {}, 50, 1, True)
    assert saved.removed == ("step-000200",) and store.names() == ["step-000000", "step-000050-a1"]


def test_a_checkpoint_that_does_not_say_when_it_was_saved_is_as_old_as_its_file(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, keep_last=3)
    done = store.save(network(), {}, 1, 0, True).path / "done.json"
    content = json.loads(done.read_text())
    del content["saved"]
    done.write_text(json.dumps(content))
    os.utime(done, (5000.0, 5000.0))
    assert store.entries()[0].saved == 5000.0


FAR: dict[str, Any] = {
    "steps": 3000, "full_steps": 1, "correct_steps": 1, "max_predict_steps": 60, "min_predict_steps": 60,
    "forward_every": 6, "validate_every": 20,
}  # fmt: skip
"""Sixty steps of a cycle are predicted, in ten batches."""


def test_predictions_bring_validations_and_checkpoints_at_most_four_times_as_often_by_batches(tmp_path: Path) -> None:
    measured: list[int] = []

    def validate() -> tuple[float, None]:
        measured.append(rig.engine.batches)
        return 1.0, None

    rig = Rig(tmp_path, validate=validate, checkpoint_every=20, **FAR)
    rig.begin().until(lambda: rig.engine.batches >= 60)
    assert rig.engine.step_count > 4 * rig.engine.batches, "most steps are predicted"
    assert len(measured) >= 4 and min(b - a for a, b in itertools.pairwise(measured)) >= 20 / 4
    saved = rig.of(CheckpointSaved)
    assert 4 <= len(saved) - 1 <= rig.engine.batches * 4 / 20
    removed = {name for record in saved for name in record.removed or ()}
    assert removed and {record.name for record in saved} - removed == set(rig.session.checkpoints.names())


def test_without_predictions_every_multiple_is_validated_and_saved(tmp_path: Path) -> None:
    rig = Rig(tmp_path, validate=lambda: (1.0, None), validate_every=5, checkpoint_every=10, full_steps=1000)
    rig.begin().until_step(50)
    assert [r.step for r in rig.of(ValidationMeasured)] == list(range(5, 51, 5))
    assert [r.step for r in rig.of(CheckpointSaved) if "every" in r.because] == [10, 20, 30, 40, 50]


@pytest.mark.parametrize("cut", [31, 33, 36])
def test_after_a_resume_validations_come_where_they_would_have_come(tmp_path: Path, cut: int) -> None:
    settings: dict[str, Any] = FAR | {"validate": lambda: (1.0, None)}

    def steps(*rigs: Rig) -> list[int]:
        return [record.step for rig in rigs for record in rig.of(ValidationMeasured)]

    whole = Rig(tmp_path / "whole", **settings).begin()
    whole.until(lambda: whole.engine.batches >= 60)
    first = Rig(tmp_path / "cut", **settings).begin()
    first.until(lambda: first.engine.batches >= cut)
    first.session.save_checkpoint("asked")
    resumed = Rig(tmp_path / "cut", **settings)
    resumed.session.resume(0, first.engine.step_count, "resumed")
    resumed.until(lambda: resumed.engine.batches >= 60)
    assert steps(first, resumed) == steps(whole) and len(steps(whole)) > 6


def test_a_later_attempt_is_newer_than_a_higher_step(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, keep_last=5)
    store.save(network(), {}, 90, 0, True)
    store.save(network(), {}, 40, 1, True)
    assert store.load_newest(CPU, good=True)[0].name == "step-000040-a1"


def test_what_was_rolled_back_is_gone_on_from_no_more(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, keep_last=9)
    for step in (100, 200, 300):
        store.save(network(), {}, step, 0, True)
    store.began(1, 0, 100)  # back to step 100
    assert store.load_newest(CPU, good=True)[0].name == "step-000100"
    store.save(network(), {}, 150, 1, True)
    store.save(network(), {}, 250, 1, True)
    assert store.load_newest(CPU, good=False)[0].name == "step-000250-a1"
    store.began(2, 0, 200)  # by name, to one that had been given up
    assert store.load_newest(CPU, good=True)[0].name == "step-000200"
    assert store.load("step-000250-a1", CPU)[0].step == 250, "by name all can be had"
    assert attempt_of("step-000250-a1") == 1 and attempt_of("step-000250") == 0 and attempt_of("mine-ab") == 0


def test_a_run_that_dies_after_a_rollback_resumes_from_where_it_went_back_to(tmp_path: Path) -> None:
    rig = Rig(tmp_path, checkpoint_every=4).begin().until_step(9)
    rig.session.roll_back("step-000004", "by an operator")
    rig.until_step(6)
    (went_back,) = rig.of(AttemptStarted)
    began = {went_back.attempt: (attempt_of(went_back.checkpoint or ""), went_back.step)}
    resumed = Rig(tmp_path, checkpoint_every=4)
    resumed.session.last_attempt = went_back.attempt
    assert resumed.session.resume(went_back.attempt, 6, "resumed", began).name == "step-000004"
    assert resumed.session.roll_back(None, "last good").name == "step-000004"


def test_weights_and_state_come_back_as_they_were(tmp_path: Path) -> None:
    rig = Rig(tmp_path).begin().until_step(12)
    entry = rig.session.save_checkpoint("test")
    _, weights, state = rig.session.checkpoints.load(entry.name, CPU)
    assert same(weights, dict(rig.model.state_dict()))
    assert same(state["engine"]["optimizer"], rig.optimizer.state_dict())
    assert entry.bytes > 0 and entry.good and rig.of(CheckpointSaved)[-1].bytes == entry.bytes


def test_tied_weights_can_be_saved_and_stay_tied(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.Linear(8, 3))
    model[2].weight = model[0].weight
    rig = Rig(tmp_path, model=model).begin().until_step(12)
    rig.session.save_checkpoint("test")
    rig.session.roll_back(None, "test")
    assert model[2].weight is model[0].weight


def test_a_full_disk_costs_a_checkpoint_and_raises_an_alert_but_not_the_run(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "checkpoints", steps=30, checkpoint_every=4).begin()
    rig.folder.rename(tmp_path / "away")
    rig.folder.write_text("a file where the folder should be")
    rig.until_step(9)
    alerts = [a for a in rig.of(AlertRaised) if a.rule == "checkpoint"]
    assert [a.step for a in alerts] == [4, 8]
    assert "could not be saved" in alerts[0].message
    rig.folder.unlink()
    (tmp_path / "away").rename(rig.folder)
    rig.finish()
    assert rig.session.checkpoints.names()[-1] == "step-000030"


@contextlib.contextmanager
def disk_with_room_for(most: int) -> Iterator[None]:
    """No file may be longer than ``most`` bytes: the writers then meet what a full disk makes them meet."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


FULL = pytest.mark.parametrize("most", [100, 2_000, 9_000], ids=["weights", "state", "the end of the state"])


@FULL
def test_what_the_writers_themselves_call_a_full_disk_costs_a_checkpoint_and_leaves_nothing(
    tmp_path: Path, most: int
) -> None:
    rig = Rig(tmp_path, steps=30, checkpoint_every=4).begin()
    with disk_with_room_for(most):
        rig.until_step(9)
    alerts = [a for a in rig.of(AlertRaised) if a.rule == "checkpoint"]
    assert [a.step for a in alerts] == [4, 8] and all("cannot be written" in a.message for a in alerts)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000"]
    assert rig.finish().session.checkpoints.names()[-1] == "step-000030"


@pytest.mark.parametrize("stopped", [True, False])
def test_a_disk_that_is_full_at_the_end_does_not_keep_a_run_from_ending(tmp_path: Path, stopped: bool) -> None:
    rig = Rig(tmp_path, steps=9 if stopped else 5, validate=lambda: (1.5, None)).begin().until_step(4)
    rig.session.stop_asked = "stopped by SIGTERM" if stopped else None
    with disk_with_room_for(2_000):
        rig.finish()
    told = rig.of(RunState)[-1]
    assert (told.state, told.step) == (("stopped", 5) if stopped else ("finished", 5))
    assert [a.message for a in rig.of(AlertResolved) if a.rule == "checkpoint"] == ["the run ends without it"]
    assert len(rig.of(ValidationMeasured)) == (0 if stopped else 1)


@FULL
def test_a_disk_that_is_full_at_the_start_is_named_and_nothing_is_trained(tmp_path: Path, most: int) -> None:
    rig = Rig(tmp_path / "checkpoints")
    with disk_with_room_for(most), pytest.raises(OSError, match="cannot be written") as caught:
        rig.begin()
    assert caught.value.filename == str(tmp_path / "checkpoints" / ".tmp-step-000000")
    assert rig.engine.step_count == 0 and "\n" not in str(caught.value)


@pytest.mark.parametrize("policy", ["document", "adaptive"])
@pytest.mark.parametrize("crash_at", [7, 13, 27, 47])
def test_a_resumed_run_ends_bit_for_bit_where_the_uninterrupted_one_does(
    tmp_path: Path, policy: str, crash_at: int
) -> None:
    """Dropout draws random numbers at every step, so the random state is part of the claim."""
    settings = {"policy": policy, "checkpoint_every": 5, "max_predict_steps": 12, "confidence_threshold": 0.4}
    whole = Rig(tmp_path / "whole", dropout=0.2, steps=60, **settings).begin().finish()

    crashed = Rig(tmp_path / "crashed", dropout=0.2, steps=60, **settings).begin().until_step(crash_at)
    left = crashed.engine.step_count
    torch.manual_seed(12345)  # whatever the new process has drawn before
    resumed = Rig(tmp_path / "crashed", dropout=0.2, steps=60, **settings)
    entry = resumed.session.resume(crashed.engine.attempt, left, "resumed")
    resumed.begin().finish()

    assert torch.equal(resumed.weights(), whole.weights())
    assert same(resumed.optimizer.state_dict(), whole.optimizer.state_dict())
    after = {r.step: r.loss for r in whole.of(StepRecord) if r.step > entry.step}
    assert {r.step: r.loss for r in resumed.of(StepRecord)} == after
    assert resumed.engine.predictions_kept == whole.engine.predictions_kept


def test_a_run_stopped_in_the_middle_of_a_prediction_resumes_inside_it(tmp_path: Path) -> None:
    whole = Rig(tmp_path / "whole", steps=60).begin().finish()
    stopped = Rig(tmp_path / "stopped", steps=60).begin().until_phase(Phase.PREDICT, 3)
    stopped.session.stop("for today")
    resumed = Rig(tmp_path / "stopped", steps=60)
    resumed.session.resume(0, stopped.engine.step_count, "resumed")
    assert resumed.engine.phase is Phase.PREDICT and resumed.engine.flight is not None
    resumed.begin().finish()
    assert torch.equal(resumed.weights(), whole.weights())


def test_settings_changed_in_a_run_are_kept_by_a_resume_and_others_are_not_frozen(tmp_path: Path) -> None:
    rig = Rig(tmp_path).begin().until_step(6)
    rig.tell(SetThreshold("gradient_norm_extreme_high", 1000.0))
    rig.tell(SetThreshold("gradient_norm_high", 500.0))
    rig.session.save_checkpoint("test")
    resumed = Rig(tmp_path, full_steps=9)
    resumed.session.resume(0, 6, "resumed")
    config = resumed.engine.config
    assert config.divergence_config.gradient_norm_high == 500.0
    assert config.divergence_config.gradient_norm_extreme_high == 1000.0
    assert config.hybrid_trainer_config.full_steps == 9, "what the new process was started with holds"


def test_a_pause_is_not_saved_with_the_weights(tmp_path: Path) -> None:
    rig = Rig(tmp_path, wait=lambda rig: rig.session.stop("while paused")).begin().until_step(3)
    rig.tell(Pause())
    resumed = Rig(tmp_path)
    resumed.session.resume(0, 3, "resumed")
    assert not resumed.session.paused


def test_early_stopping_ends_the_run_after_its_patience(tmp_path: Path) -> None:
    losses = iter([3.0, 2.0, 2.5, 2.1, 2.2, 1.0])
    rig = Rig(
        tmp_path, validate=lambda: (next(losses), None), validate_every=5, early_stopping_patience=3, steps=200
    ).begin()
    rig.finish()
    assert rig.session.ended is not None
    assert rig.session.ended[0] == "finished" and "no better validation loss in 3" in rig.session.ended[1]
    assert rig.engine.step_count == 25


def test_the_checkpoint_of_the_best_validation_outlasts_newer_ones_and_can_be_gone_back_to(tmp_path: Path) -> None:
    losses = iter([3.0, 1.0, *[2.0 + i for i in range(40)]])
    rig = Rig(
        tmp_path,
        steps=60,
        checkpoint_every=3,
        validate_every=5,
        validate=lambda: (next(losses), None),
        policy="document",
    )
    rig.begin().until_step(10)
    best = rig.weights()
    rig.finish()
    saved = [r for r in rig.of(CheckpointSaved) if r.best]
    assert [(r.step, r.because) for r in saved] == [(5, saved[0].because), (10, "best validation loss so far")]
    assert [e.name for e in rig.session.checkpoints.entries() if e.best] == ["step-000010"]
    entry, weights, _ = rig.session.checkpoints.load("step-000010", CPU)
    assert entry.best
    assert torch.equal(torch.cat([weights[name].flatten().double() for name in rig.model.state_dict()]), best)


def test_a_run_whose_journal_was_lost_takes_an_attempt_no_checkpoint_has(tmp_path: Path) -> None:
    """Its number was that of the checkpoint it went on from: the way back to the first attempt never ended."""
    rig = Rig(tmp_path, steps=60).begin().until_step(8)
    rig.session.save_checkpoint("asked for")
    rig.session.roll_back(None, "asked for")
    rig.until_step(12)
    assert rig.session.save_checkpoint("asked for").attempt == 1
    resumed = Rig(tmp_path, steps=60)
    resumed.session.resume(0, 0, "resumed")
    assert resumed.engine.attempt == 2
    assert resumed.session.save_checkpoint("asked for").name == "step-000012-a2"


def test_predictions_that_follow_one_another_do_not_keep_checkpoints_away(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"policy": "adaptive", "min_predict_steps": 2, "confidence_threshold": 0.0}
    rig = Rig(tmp_path, steps=100_000, max_predict_steps=30, checkpoint_every=20, **settings).begin()
    saved = []
    for _ in range(80):
        rig.step()
        saved.append(len(rig.of(CheckpointSaved)))
    chained = [s.phase for s in rig.of(StepRecord)[-60:]].count(Phase.CORRECT)
    assert chained > 50, "hardly a FULL step between two predictions"
    waits = [sum(count == number for count in saved) for number in sorted(set(saved))[:-1]]
    assert max(waits[1:]) <= 10, "two intervals of 20 steps, by batches a quarter of that each"
    name = rig.of(CheckpointSaved)[-1].name
    rig.session.roll_back(name, "to the newest")
    rig.step()
    assert rig.engine.attempt == 1
