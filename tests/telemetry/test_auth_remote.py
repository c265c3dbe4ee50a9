"""Runs on other machines: who may listen, what is refused before training begins, and everything over sockets alone."""

import socket as plain
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.telemetry.trainers import Trainer
from tests.telemetry.waiting import until
from tests.telemetry.wires import endpoint
from trainer_core.monitor import Monitor
from trainer_core.spec.commands import CommandRequest, CommandState, Pause, Refusal
from trainer_core.spec.errors import RunError, UserError
from trainer_core.spec.records import Row, StepRecord
from trainer_core.telemetry.client import Client
from trainer_core.telemetry.follower import Follower
from trainer_core.telemetry.journal import JournalReader
from trainer_core.telemetry.keys import create, revoke
from trainer_core.telemetry.listening import LAST_PORT, check, permitted, place


@pytest.mark.parametrize(
    ("text", "address", "port", "remote"),
    [
        ("127.0.0.1", "127.0.0.1", 0, False),
        ("localhost:7700", "127.0.0.1", 7700, False),
        ("0.0.0.0:7700", "0.0.0.0", 7700, True),
        ("[::1]:7700", "::1", 7700, False),
        ("[::]", "::", 0, True),
        ("192.0.2.7:65533", "192.0.2.7", LAST_PORT, True),
    ],
)
def test_places_are_read_as_they_are_written(text: str, address: str, port: int, remote: bool) -> None:
    read = place(text, "--listen")
    assert (read.address, read.port, read.remote) == (address, port, remote)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "write HOST or HOST:PORT"),
        (":7700", "write HOST or HOST:PORT"),
        ("a b:7700", "write HOST or HOST:PORT"),
        ("::1", "write HOST or HOST:PORT"),
        ("tcp://1.2.3.4:7", "write HOST or HOST:PORT"),
        ("127.0.0.1:http", "write HOST or HOST:PORT"),
        ("127.0.0.1:65534", "must be 0 to 65533"),
        ("no-such-machine.invalid:7700", "no machine is known by that name"),
    ],
)
def test_what_is_no_place_is_refused_in_words(text: str, says: str) -> None:
    with pytest.raises(UserError, match=r"^--listen") as told:
        place(text, "--listen")
    assert says in str(told.value) and told.value.exit_code == 2


@pytest.mark.parametrize("text", ["127.0.0.1", "localhost"])
def test_a_caller_must_say_the_port(text: str) -> None:
    with pytest.raises(UserError, match="PORT"):
        place(text, "address", port_needed=True)


def test_others_may_call_only_when_a_named_key_exists(tmp_path: Path) -> None:
    run_dir = tmp_path / "r"
    with pytest.raises(UserError, match=f"hybrid keys create {run_dir} NAME --role viewer"):
        Monitor(run_dir, listen="0.0.0.0")
    assert not run_dir.exists(), "refused before anything was written"
    assert not permitted(run_dir, "127.0.0.1").remote and not permitted(run_dir, None).remote
    create(run_dir, "ann", "viewer")
    assert permitted(run_dir, "0.0.0.0:7700").remote
    revoke(run_dir, "ann")
    with pytest.raises(UserError, match="no named key"):
        permitted(run_dir, "0.0.0.0:7700")


def test_a_port_that_is_taken_or_an_address_of_another_machine_is_refused_before_training(tmp_path: Path) -> None:
    create(tmp_path, "ann", "viewer")
    with plain.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for first in (port, port - 1, port - 2):
            with pytest.raises(UserError, match=f"port {port} of 127.0.0.1 cannot be listened on: address already"):
                check(tmp_path, f"127.0.0.1:{first}")
    with pytest.raises(UserError, match=r"192\.0\.2\.7 cannot be listened on"):
        check(tmp_path, "192.0.2.7:7700")


@pytest.fixture
def far(run_dir: Path) -> Iterator[Trainer]:
    """A run that others may call; it is this machine that calls, through the wildcard address."""
    create(run_dir, "ann", "viewer", run_dir / "ann.json")
    create(run_dir, "bob", "operator", run_dir / "bob.json")
    with Trainer(run_dir, listen="0.0.0.0") as trainer:
        until(lambda: (run_dir / "endpoint.json").exists())
        yield trainer


def there(run_dir: Path) -> str:
    """HOST:PORT as another machine would say it."""
    return str(endpoint(run_dir)["news"]).removeprefix("tcp://")


def follow(follower: Follower, last_seq: int, rows: list[Row]) -> None:
    until(lambda: rows.extend(follower.poll(0.1)) or bool(rows and rows[-1].seq >= last_seq), within=30)


def test_a_run_elsewhere_is_followed_and_steered_over_sockets_alone(far: Trainer) -> None:
    far.steps(5000)
    at, key = there(far.run_dir), far.run_dir / "bob.json"
    rows: list[Row] = []
    with Follower(at, key_file=far.run_dir / "ann.json") as follower, Client(at, key_file=key) as bob:
        follow(follower, 5002, rows)
        until(lambda: follower.poll(0.05) == [] and follower.live)
        far.steps(50)
        follow(follower, 5052, rows)
        assert follower.status().state == "working" and follower.newest >= 5052
        status = bob.send(CommandRequest("pause-it-now", Pause()))
        assert bob.wait("pause-it-now", 10).state is CommandState.APPLIED and status.actor == "bob"
        follow(follower, 5055, rows)
    assert rows == JournalReader(far.run_dir).rows(limit=10**6)[: len(rows)]
    assert isinstance(rows[2].record, StepRecord) and len(rows) >= 5055


def test_damaged_rows_of_a_run_elsewhere_are_left_out_and_named(run_dir: Path) -> None:
    import sqlite3

    create(run_dir, "ann", "viewer", run_dir / "ann.json")
    with Trainer(run_dir) as trainer:
        trainer.steps(20)
        with sqlite3.connect(run_dir / "journal.db") as db:
            db.execute("UPDATE rows SET body = x'00' WHERE seq IN (1, 9, 22)")
        until(lambda: (run_dir / "endpoint.json").exists())
        trainer.steps(5)
        rows: list[Row] = []
        with Follower(there(run_dir), key_file=run_dir / "ann.json") as follower:
            follow(follower, 27, rows)
            assert follower.damaged == {1, 9, 22}
    assert [row.seq for row in rows] == [seq for seq in range(1, 28) if seq not in (1, 9, 22)]


def test_a_key_file_that_holds_no_key_is_said_elsewhere_and_here_the_journal_is_read(far: Trainer) -> None:
    file = far.run_dir / "ann.json"
    file.write_text(file.read_text().replace('"secret": "', '"secret": "\\\\'))
    with pytest.raises(RunError, match="not a CURVE key"):
        Follower(there(far.run_dir), key_file=file)
    own = far.run_dir / "keys" / "viewer.key"
    own.write_text('{"public": "p", "secret": "s"}')
    far.steps(3)
    with Follower(far.run_dir) as follower:
        follow(follower, 5, rows := [])
    assert len(rows) == 5


def test_a_viewer_steers_nothing_and_a_wrong_place_is_said(far: Trainer) -> None:
    with Client(there(far.run_dir), key_file=far.run_dir / "ann.json") as ann:
        assert ann.hello() is not None
        told = ann.send(CommandRequest("pause-it-now", Pause()))
        assert (told.state, told.refusal) == (CommandState.REJECTED, Refusal.AUTH)
    with plain.create_server(("127.0.0.1", 0)) as nobody:
        at = f"127.0.0.1:{min(nobody.getsockname()[1], LAST_PORT)}"
        with pytest.raises(RunError, match=f"no agent answers at {at}"):
            Follower(at, key_file=far.run_dir / "ann.json")


def test_an_agent_that_went_away_is_found_again_and_another_journal_begins_at_its_first_row(run_dir: Path) -> None:
    create(run_dir, "ann", "viewer", run_dir / "ann.json")
    with plain.create_server(("127.0.0.1", 0)) as probe:
        at = f"127.0.0.1:{min(probe.getsockname()[1], LAST_PORT)}"
    first = Trainer(run_dir, listen=at)
    first.steps(5)
    until(lambda: (run_dir / "endpoint.json").exists())
    assert there(run_dir) == at
    rows: list[Row] = []
    with Follower(at, key_file=run_dir / "ann.json") as follower:
        follow(follower, 7, rows)
        first.end()
        follow(follower, 8, rows)
        assert until(lambda: follower.poll(0.05) == [] and follower.status().state == "finished")
        until(lambda: not (run_dir / "endpoint.json").exists())  # it lingers, and goes
        assert until(lambda: follower.poll(0.05) == [] and follower.status().state == "unreachable")
        assert "no agent answers at" in follower.status().because
        for file in run_dir.glob("journal.db*"):
            file.unlink()
        with Trainer(run_dir, listen=at) as second:
            second.steps(3)
            again: list[Row] = []
            follow(follower, 5, again)
            assert [row.seq for row in again] == [1, 2, 3, 4, 5]
            assert follower.status().state == "working"
