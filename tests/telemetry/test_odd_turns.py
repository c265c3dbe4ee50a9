"""Odd turns of a run's life, each seen by hand first: what was found wrong is held here."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import until as happens
from tests.conftest import end_agents
from tests.telemetry.trainers import REPO, Trainer
from tests.telemetry.waiting import until
from tests.telemetry.wires import answered, dealer
from trainer_core import Monitor, read_run, resuming
from trainer_core.spec.commands import Annotate, CommandRequest, CommandState, Refusal, SetKnob
from trainer_core.spec.errors import UserError, WrongRun
from trainer_core.telemetry import wire
from trainer_core.telemetry.agent import LINGER_S, lingering
from trainer_core.telemetry.client import Client
from trainer_core.telemetry.desk import Desk
from trainer_core.telemetry.endpoint import read_endpoint
from trainer_core.telemetry.rundir import RunLock, claim, held, status


def answering(run_dir: Path) -> int:
    """The process id of the agent that answers."""

    def found() -> int:
        with Client(run_dir) as client:
            there = read_endpoint(run_dir) if client.hello() is not None else None
        return there.pid if there is not None else 0

    return until(found)


def test_of_trainers_that_begin_in_one_directory_at_once_one_has_it(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second has looked for a run and found none; while it waits for the lock, the first begins and ends."""

    def claim_late(folder: Path) -> RunLock:
        monkeypatch.undo()
        with Monitor(folder, serve=False) as first:
            first.step(loss=1.0)
        return claim(folder)

    monkeypatch.setattr(resuming, "claim", claim_late)
    with pytest.raises(WrongRun, match="already holds a run"):
        Monitor(run_dir, serve=False)
    assert read_run(run_dir, "run-started").height == 1 and not held(run_dir)


def test_what_waited_while_the_agent_was_stopped_is_as_old_as_it_is(run_dir: Path) -> None:
    """It was given its whole time to live when the agent went on, however long ago it had been sent."""
    with Trainer(run_dir) as trainer:
        trainer.steps(3)
        pid = answering(run_dir)
        with dealer(run_dir, "commands", "operator") as socket:
            assert answered(socket, [wire.pack(wire.AskStatus(command_id="nothing-yet"))])
            os.kill(pid, signal.SIGSTOP)
            sent = time.time()
            late = CommandRequest("sent-to-no-one", Annotate("late"), ttl_s=1.0)
            socket.send(wire.pack(wire.Send(request=late)))
            until(lambda: time.time() > sent + 1.5)
            os.kill(pid, signal.SIGCONT)
            reply = wire.replies.decode(socket.recv()).status
            assert reply is not None and reply.state is CommandState.ACCEPTED
        with Client(run_dir) as client:
            assert client.wait("sent-to-no-one", 10).state is CommandState.EXPIRED
            assert trainer.taken[0].received_at <= sent

            def is_young() -> bool:
                name = f"sent-after-{len(trainer.taken)}"
                client.send(CommandRequest(name, Annotate("now"), ttl_s=30.0))
                assert client.wait(name, 10).state is CommandState.APPLIED
                return trainer.taken[-1].received_at > sent + 1.5

            until(is_young)


def test_commands_reach_the_trainer_though_their_file_was_removed_under_it(run_dir: Path) -> None:
    with Trainer(run_dir) as trainer, Client(run_dir) as client:
        trainer.steps(3)
        pid = answering(run_dir)
        client.send(CommandRequest("before-it", Annotate("one")))
        assert client.wait("before-it", 10).state is CommandState.APPLIED
        for file in run_dir.glob("commands.db*"):
            file.unlink()
        os.kill(pid, signal.SIGKILL)
        until(lambda: answering(run_dir) != pid)
        for name in ("after-it-1", "after-it-2"):
            client.send(CommandRequest(name, Annotate(name)))
            assert client.wait(name, 10).state is CommandState.APPLIED
        assert [taken.request.command_id for taken in trainer.taken] == ["before-it", "after-it-1", "after-it-2"]


def test_a_journal_that_was_removed_under_the_trainer_is_begun_anew_and_says_so(run_dir: Path) -> None:
    """Everything after it went into a file that nobody could open, and nothing said so."""
    with Trainer(run_dir) as trainer:
        trainer.steps(3)
        pid = answering(run_dir)
        for file in sorted(run_dir.glob("journal.db*"), reverse=True):  # itself last: from then on it is missed
            file.unlink()
        until((run_dir / "journal.db").exists)
        trainer.steps(2)
        assert until(lambda: answering(run_dir) != pid), "an agent of the new journal"
        with Client(run_dir) as client:
            client.send(CommandRequest("after-it-1", Annotate("one")))
            assert client.wait("after-it-1", 10).state is CommandState.APPLIED
        trainer.end()
    assert read_run(run_dir)["step"].to_list()[-2:] == [4, 5]
    assert "journal.db was removed while the run goes on" in read_run(run_dir, "alert-raised")["message"][0]
    assert read_run(run_dir, "alert-raised")["step"][0] == 3, "when it happened"
    assert read_run(run_dir, "run-started").height == 1, "what it is a journal of"
    assert status(run_dir).state == "finished"


def test_a_journal_replaced_under_the_trainer_is_set_aside_and_begun_anew(run_dir: Path, tmp_path: Path) -> None:
    """An earlier copy put back in its place: the rows after it went into a file that nobody could open."""
    copy = tmp_path / "copy.db"
    with Trainer(run_dir) as trainer:
        trainer.steps(3)
        until(lambda: read_run(run_dir).height == 3)
        with contextlib.closing(sqlite3.connect(run_dir / "journal.db")) as source:
            source.execute("VACUUM INTO ?", (str(copy),))
        pid = answering(run_dir)
        copy.replace(run_dir / "journal.db")
        until(lambda: list(run_dir.glob("journal.db.replaced-*")) and (run_dir / "journal.db").exists())
        trainer.steps(2)
        assert until(lambda: answering(run_dir) != pid), "an agent of the new journal"
        with Client(run_dir) as client:
            client.send(CommandRequest("after-it-1", Annotate("one")))
            assert client.wait("after-it-1", 10).state is CommandState.APPLIED
        trainer.end()
    assert read_run(run_dir)["step"].to_list() == [4, 5]
    aside = next(run_dir.glob("journal.db.replaced-*[0-9a-f]")).name
    assert read_run(run_dir, journal=aside)["step"].to_list() == [1, 2, 3]
    said = read_run(run_dir, "alert-raised")["message"][0]
    assert said.startswith("journal.db was replaced while the run goes on") and aside in said
    assert status(run_dir).state == "finished"


@pytest.mark.parametrize("said", ["abc", "nan", "-1", "inf", ""])
def test_a_lingering_time_that_is_none_is_refused_in_words(said: str) -> None:
    with pytest.raises(UserError, match=f"^HYBRID_AGENT_LINGER_S = {said}: must be a number of seconds, at least 0$"):
        lingering({"HYBRID_AGENT_LINGER_S": said})
    assert lingering({}) == LINGER_S and lingering({"HYBRID_AGENT_LINGER_S": "2.5"}) == 2.5


@pytest.mark.parametrize("words", [("report",), ("report", "--json"), ("watch",), ("runs", "--json")])
def test_an_output_that_cannot_be_written_is_one_sentence(run_dir: Path, words: tuple[str, ...]) -> None:
    with Trainer(run_dir, serves=False) as trainer:
        trainer.steps(3)
        trainer.end()
    command = [sys.executable, "-m", "trainer_core", words[0], str(run_dir), *words[1:]]
    with open("/dev/full", "w") as full:
        said = subprocess.run(command, cwd=REPO, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (said.returncode, said.stderr) == (1, "hybrid: the output cannot be written: No space left on device\n")


def test_a_run_directory_that_is_renamed_and_named_back_is_served_again(run_dir: Path) -> None:
    elsewhere = run_dir.with_name("elsewhere")
    with Trainer(run_dir) as trainer:
        trainer.steps(3)
        answering(run_dir)
        run_dir.rename(elsewhere)
        trainer.steps(3)
        happens(lambda: "does not start" in str(read_run(elsewhere, "alert-raised")["message"].to_list()), "an alert")
        assert not run_dir.exists(), "nothing is made in its old place"
        elsewhere.rename(run_dir)
        happens(lambda: "agent" in read_run(run_dir, "alert-resolved")["rule"].to_list(), "the alert is not resolved")
        assert answering(run_dir) and read_run(run_dir).height == 6


def applied(run_dir: Path, monitor: Monitor, text: str) -> bool:
    """Whether a note given now is taken by the loop."""
    with Client(run_dir) as client:
        happens(lambda: client.hello() is not None, "no agent answers")
        sent = client.send(CommandRequest(f"note-{text}-0000", Annotate(text)))

        def ended() -> CommandState | None:
            monitor.step(loss=1.0)
            state = client.status(sent.command_id).state
            return state if state is not None and state.final else None

        return until(ended) is CommandState.APPLIED


def test_a_program_that_changes_its_directory_is_steered_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with Monitor("run") as monitor:
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert applied(tmp_path / "run", monitor, "first")
        assert monitor.run_dir == tmp_path / "run"
    assert not any((tmp_path / "elsewhere").iterdir())
    end_agents(tmp_path)


def test_locks_and_endpoint_that_were_removed_are_put_back(run_dir: Path) -> None:
    """Without run.lock the run looked crashed and a second trainer came in; without the others nobody could steer."""
    with Monitor(run_dir) as monitor:
        assert applied(run_dir, monitor, "before")
        (run_dir / "run.lock").unlink()
        happens(lambda: held(run_dir), "nobody holds the run")
        with pytest.raises(UserError, match="is in use by process"):
            Monitor(run_dir, resume=True, serve=False)
        assert status(run_dir).state == "working"
        for name in ("endpoint.json", "agent.lock"):
            (run_dir / name).unlink()
            happens((run_dir / name).exists, f"{name} is not back")
            assert applied(run_dir, monitor, name)
    assert "run.lock was removed" in str(read_run(run_dir, "note")["text"].to_list())
    assert not held(run_dir)


def test_of_a_run_that_was_claimed_while_its_lock_was_gone_the_first_says_so(run_dir: Path) -> None:
    with Monitor(run_dir, serve=False):
        (run_dir / "run.lock").unlink()
        other = claim(run_dir)
        happens(lambda: "end one of the two" in str(read_run(run_dir, "alert-raised")["message"].to_list()), "no alert")
        other.close()


@pytest.mark.parametrize("shared", [True, False])
def test_who_may_not_write_in_the_directory_reads_the_newest_rows_too(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """Another user's live run, or one on a read-only disk: rows that are only in the log were left out, unsaid."""
    with Trainer(run_dir, serves=False) as trainer:
        trainer.steps(3)
        place = run_dir
        if not shared:
            place = tmp_path / "copy"
            place.mkdir()
            for name in ("journal.db", "journal.db-wal"):
                shutil.copy(run_dir / name, place)
        monkeypatch.setattr("trainer_core.telemetry.opening.os.access", lambda *_: False)
        assert read_run(place).height == 3
        trainer.steps(2)
        assert read_run(run_dir).height == 5
        assert not (place / "journal.db-shm").exists() or shared


@pytest.mark.parametrize("what", ["damaged", "removed"])
def test_a_run_whose_commands_db_is_gone_is_resumed_with_what_it_was_told(run_dir: Path, what: str) -> None:
    """It was a trace of sqlite3; and of a removed one, every setting was forgotten without a word."""
    box = {"p": 0.1}
    order = CommandRequest("set-the-knob", SetKnob("p", 0.4))

    def declare(monitor: Monitor) -> None:
        monitor.knob("p", lambda: box["p"], lambda value: box.update(p=value), low=0, high=1)

    with Monitor(run_dir) as monitor, Client(run_dir) as client:
        declare(monitor)
        happens(lambda: client.hello() is not None, "no agent answers")
        client.send(order)
        happens(lambda: monitor.step(loss=1.0) is None and box["p"] == 0.4, "the knob is not set")
    happens(lambda: not held(run_dir, "agent.lock"), "the agent lingers on")
    for file in run_dir.glob("commands.db*"):
        file.unlink()
    if what == "damaged":
        (run_dir / "commands.db").write_bytes(b"this is no database, but long enough to be read as one" * 40)
    box["p"] = 0.1
    with Monitor(run_dir, resume=True) as monitor, Client(run_dir) as client:
        declare(monitor)
        monitor.step(loss=1.0)
        assert box["p"] == 0.4
        happens(lambda: client.hello() is not None, "no agent answers")
        assert client.send(order).state is CommandState.APPLIED, "the id is known"
        assert client.send(CommandRequest(order.command_id, SetKnob("p", 0.2))).refusal is Refusal.CONFLICT
        assert applied(run_dir, monitor, "again")
    said = str(read_run(run_dir, "alert-raised")["message"].to_list())
    assert ("commands.db was damaged and set aside as commands.db.corrupt-" in said) == (what == "damaged")


def test_a_clock_that_is_set_back_takes_no_commands_away(run_dir: Path) -> None:
    """Whoever had given a command before could give none, not even a stop, until the clock was where it had been."""
    now = [100_000.0]
    desk = Desk(run_dir, lambda: True, lambda: now[0])
    with contextlib.closing(desk):
        for number in range(3):
            assert desk.send(CommandRequest(f"command-{number}", Annotate("x")), "ann").state is CommandState.ACCEPTED
            now[0] -= 3600
