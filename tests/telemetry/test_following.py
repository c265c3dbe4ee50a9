"""A follower gets every row once and in order, whatever comes and goes."""

import os
import shutil
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.telemetry.examples import step_record
from tests.telemetry.trainers import Trainer, TrainerProcess
from tests.telemetry.waiting import until
from tests.telemetry.wires import endpoint
from trainer_core.spec.records import Row, StepRecord
from trainer_core.telemetry.client import Client
from trainer_core.telemetry.follower import Follower
from trainer_core.telemetry.journal import JournalError, JournalReader


def follow(follower: Follower, last_seq: int, rows: list[Row] | None = None) -> list[Row]:
    """Poll until ``last_seq`` is there; every poll's rows join on without a hole or a repetition."""
    rows = [] if rows is None else rows

    def arrived() -> bool:
        for row in follower.poll(0.1):
            assert not rows or row.seq == rows[-1].seq + 1
            rows.append(row)
        return bool(rows) and rows[-1].seq >= last_seq

    until(arrived, within=30)
    return rows


def agent_pid(run_dir: Path) -> int | None:
    """The agent that answers, if one does."""
    with Client(run_dir, role="viewer") as client:
        return endpoint(run_dir)["pid"] if client.hello() else None


def test_a_live_follower_gets_rows_over_the_socket_with_a_heartbeat(run_dir: Path) -> None:
    with Trainer(run_dir) as trainer:
        follower = Follower(run_dir)
        rows = follow(follower, 2)
        trainer.steps(100)
        follow(follower, 102, rows)
        assert [row.seq for row in rows] == list(range(1, 103))
        until(lambda: follower.poll(0.1) == [] and follower.heartbeat is not None)
        assert follower.heartbeat is not None
        until(lambda: follower.poll(0.1) == [] and follower.heartbeat.last_seq == 102)  # type: ignore[union-attr]
        assert follower.status().state == "working"
        follower.close()


def test_nan_and_none_survive_the_wire_as_two_things(run_dir: Path) -> None:
    with Trainer(run_dir) as trainer:
        follower = Follower(run_dir)
        follow(follower, 2)
        trainer.say(
            step_record(1, loss=float("nan"), grad_norm=None), step_record(2, loss=None, grad_norm=float("inf"))
        )
        one, two = (row.record for row in follow(follower, 4)[-2:])
        follower.close()
    assert isinstance(one, StepRecord) and isinstance(two, StepRecord)
    assert one.loss is not None and one.loss != one.loss and one.grad_norm is None
    assert two.loss is None and two.grad_norm == float("inf")


def test_a_late_joiner_gets_everything_from_the_start(run_dir: Path) -> None:
    with Trainer(run_dir) as trainer:
        trainer.steps(5000)
        follower = Follower(run_dir)
        assert len(follow(follower, 5002)) == 5002
        trainer.steps(10)
        follow(follower, 5012, [*JournalReader(run_dir).last_rows(11)[:1]])
        follower.close()


def test_a_follower_that_knows_rows_is_given_only_what_comes_after(run_dir: Path) -> None:
    with Trainer(run_dir) as trainer:
        trainer.steps(50)
        follower = Follower(run_dir, after_seq=40)
        assert [row.seq for row in follow(follower, 52)] == list(range(41, 53))
        follower.close()


def test_without_an_agent_the_journal_itself_is_read(run_dir: Path) -> None:
    with Trainer(run_dir, serves=False) as trainer:
        follower = Follower(run_dir)
        trainer.steps(30)
        assert len(follow(follower, 32)) == 32
        follower.close()


def test_a_finished_run_is_read_the_same_way(run_dir: Path) -> None:
    trainer = Trainer(run_dir, serves=False)
    trainer.steps(30)
    trainer.end()
    follower = Follower(run_dir)
    rows = follow(follower, 33)
    assert follower.status().state == "finished"
    assert len(rows) == 33
    follower.close()


def test_a_killed_agent_comes_back_and_no_row_is_missed(run_dir: Path) -> None:
    with Trainer(run_dir) as trainer:
        until(lambda: agent_pid(run_dir))
        follower = Follower(run_dir)
        rows = follow(follower, 2)
        for _ in range(2):
            pid = agent_pid(run_dir)
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            trainer.steps(20)
            follow(follower, rows[-1].seq + 20, rows)
            until(lambda gone=pid: agent_pid(run_dir) not in (None, gone), within=30)  # type: ignore[misc]
            trainer.steps(20)
            follow(follower, rows[-1].seq + 20, rows)
        assert [row.seq for row in rows] == list(range(1, 83))
        follower.close()


def test_a_killed_trainer_leaves_contiguous_sound_rows_and_nothing_shown_is_missing(run_dir: Path) -> None:
    shown: list[Row] = []
    for _ in range(3):
        with TrainerProcess(run_dir) as trainer:
            follower = Follower(run_dir, after_seq=shown[-1].seq if shown else 0)
            trainer.run()
            follow(follower, (shown[-1].seq if shown else 0) + 300, shown)
            trainer.kill()
            follower.close()
        rows = JournalReader(run_dir).rows(limit=10**6)
        assert [row.seq for row in rows] == list(range(1, rows[-1].seq + 1))
        assert rows[: len(shown)] == shown


def test_a_resumed_run_whose_old_agent_lingers_is_served_by_a_working_one(run_dir: Path) -> None:
    with TrainerProcess(run_dir) as first:
        until(lambda: agent_pid(run_dir))
        first.steps(5)
        first.kill()
    with Trainer(run_dir) as second:
        follower = Follower(run_dir)
        rows = follow(follower, 9)
        second.steps(5)
        follow(follower, 14, rows)
        until(lambda: follower.poll(0.1) is not None and follower.heartbeat is not None)
        until(lambda: follower.poll(0.1) is not None and follower.heartbeat.status.state == "working")  # type: ignore[union-attr]
        follower.close()


def test_a_new_journal_in_the_same_place_is_followed_from_its_start(run_dir: Path) -> None:
    Trainer(run_dir, serves=False).end()
    follower = Follower(run_dir)
    first = JournalReader(run_dir).journal_id
    follow(follower, 3)
    shutil.rmtree(run_dir)
    Trainer(run_dir, serves=False).end()
    assert JournalReader(run_dir).journal_id != first
    assert [row.seq for row in follow(follower, 3)] == [1, 2, 3]
    follower.close()


def test_a_follower_of_nothing_is_told_so(run_dir: Path) -> None:
    with pytest.raises(JournalError, match="is not a run directory"):
        Follower(run_dir)


def test_eight_runs_with_three_dashboards_each_and_every_row_arrives_everywhere(run_dir: Path) -> None:
    with ExitStack() as stack:
        trainers = [stack.enter_context(Trainer(run_dir / f"{n}", obeys=False)) for n in range(8)]
        followers = [stack.enter_context(Follower(trainer.run_dir)) for trainer in trainers for _ in range(3)]
        seqs: list[list[int]] = [[] for _ in followers]

        def everywhere(last: int) -> bool:
            for follower, seen in zip(followers, seqs, strict=True):
                seen += [row.seq for row in follower.poll(0.0)]
            return all(seen[-1:] == [last] for seen in seqs)

        until(lambda: everywhere(2) and all(follower.heartbeat for follower in followers), within=60)
        for trainer in trainers:
            trainer.steps(40)
        until(lambda: everywhere(42), within=30)
        assert all(follower.live for follower in followers), "over the sockets, not from the files"
    assert all(seen == list(range(1, 43)) for seen in seqs)
