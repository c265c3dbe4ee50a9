"""The list of runs: what has not changed is not read again, what has is."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.listing import Listing
from tests.app.conftest import until
from tests.app.rows import Script
from tests.telemetry.trainers import Trainer, TrainerProcess
from trainer_core.spec.records import RunState
from trainer_core.telemetry.rundir import RunSummary, summary


class Counted:
    """Reads summaries and keeps whose."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, path: Path) -> RunSummary:
        self.read.append(path.name)
        return summary(path)

    def since(self) -> list[str]:
        """Whose were read since the last call."""
        found, self.read = self.read, []
        return found


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def listing(runs_dir: Path, counted: Counted) -> Listing:
    return Listing(runs_dir, counted)


def states(listing: Listing) -> dict[str, str]:
    return {run.name: run.status.state for run in listing.runs()}


def test_a_run_that_is_over_is_read_once(runs_dir: Path, listing: Listing, counted: Counted) -> None:
    Trainer(runs_dir / "a", serves=False).end("finished")
    Trainer(runs_dir / "b", serves=False).close()
    assert states(listing) == {"a": "finished", "b": "crashed"}
    assert sorted(counted.since()) == ["a", "b"]
    for _ in range(3):
        assert states(listing) == {"a": "finished", "b": "crashed"}
    assert counted.since() == []


def test_a_run_that_steps_is_read_each_time_and_one_that_is_killed_has_crashed(
    runs_dir: Path, listing: Listing, counted: Counted
) -> None:
    with TrainerProcess(runs_dir / "a", serves=False) as trainer:
        trainer.steps(1)
        assert states(listing) == {"a": "working"}
        trainer.steps(3)
        (found,) = listing.runs()
        assert (found.status.step, counted.since()) == (summary(runs_dir / "a").status.step, ["a", "a"])
        trainer.kill()
    assert states(listing) == states(listing) == {"a": "crashed"}
    assert counted.since() == ["a"]


def test_a_run_that_goes_on_is_working_again(runs_dir: Path, listing: Listing) -> None:
    Trainer(runs_dir / "a", serves=False).end("stopped")
    assert states(listing) == states(listing) == {"a": "stopped"}
    with Trainer(runs_dir / "a", serves=False) as trainer:
        trainer.say(RunState(0, "running", "goes on"))
        trainer.steps(2)
        until(lambda: states(listing) == {"a": "working"}, 10, "it works")
    assert states(listing) == {"a": "crashed"}


def test_runs_that_come_go_and_take_anothers_place_are_seen(
    runs_dir: Path, listing: Listing, written_run: Callable[[str, Script], Path]
) -> None:
    for name, word in (("a", "finished"), ("b", "failed")):
        Trainer(runs_dir / name, serves=False).end(word)
    assert states(listing) == {"a": "finished", "b": "failed"}
    shutil.rmtree(runs_dir / "a")
    assert states(listing) == {"b": "failed"}
    Trainer(runs_dir / "c", serves=False).end("stopped")
    assert states(listing) == {"b": "failed", "c": "stopped"}
    shutil.rmtree(runs_dir / "b")
    (runs_dir / "c").rename(runs_dir / "b")
    assert states(listing) == {"b": "stopped"}
    shutil.rmtree(runs_dir / "b")
    written_run("b", Script().start().steps(7))
    assert [run.status.step for run in listing.runs()] == [7]


def test_what_cannot_be_read_is_tried_each_time(runs_dir: Path, listing: Listing, counted: Counted) -> None:
    (runs_dir / "a").mkdir(parents=True)
    (runs_dir / "a" / "journal.db").write_bytes(b"this is no database" * 100)
    assert states(listing) == states(listing) == {"a": "unreadable"}
    assert counted.since() == ["a", "a"]


def test_the_age_of_the_last_step_goes_on(runs_dir: Path, listing: Listing) -> None:
    with Trainer(runs_dir / "a", serves=False) as trainer:
        trainer.steps(1)
    (first,) = listing.runs()
    began = time.monotonic()
    until(lambda: time.monotonic() > began + 0.05, 5, "a while later")
    (later,) = listing.runs()
    assert first.status.age_s is not None and later.status.age_s is not None
    assert later.status.age_s >= first.status.age_s + 0.05
