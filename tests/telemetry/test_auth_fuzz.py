"""Arbitrary bytes on every socket, before and behind the lock: nothing changes, and the agent lives."""

import contextlib
import socket as plain
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import end_agents
from tests.telemetry.trainers import Trainer
from tests.telemetry.waiting import until
from tests.telemetry.wires import endpoint
from trainer_core.spec.commands import CommandRequest, Pause
from trainer_core.telemetry import wire
from trainer_core.telemetry.auth import COMMANDS, NEWS, QUESTIONS, secure_client
from trainer_core.telemetry.client import Client
from trainer_core.telemetry.journal import JournalReader
from trainer_core.telemetry.keys import read_key

MANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Watched:
    """A run with its agent, one connection behind the lock on each socket, and what must not change."""

    def __init__(self, trainer: Trainer) -> None:
        self.run_dir = trainer.run_dir
        self._context: zmq.Context[Any] = zmq.Context()
        self.inside = {name: self._connection(name) for name in (NEWS, QUESTIONS, COMMANDS)}
        self.before = self._state()

    def _connection(self, name: str) -> "zmq.Socket[Any]":
        socket = self._context.socket(zmq.XSUB if name == NEWS else zmq.DEALER)
        socket.linger = 0
        secure_client(socket, endpoint(self.run_dir)["server_key"], read_key(self.run_dir, "operator"))
        socket.connect(endpoint(self.run_dir)[name])
        return socket

    def _state(self) -> tuple[object, ...]:
        """The journal's rows, the commands, and which agent it is."""
        reader = JournalReader(self.run_dir)
        rows = reader.raw_rows()
        reader.close()
        with contextlib.closing(sqlite3.connect(self.run_dir / "commands.db")) as db:
            commands = db.execute("SELECT * FROM commands").fetchall()
        return rows, commands, endpoint(self.run_dir)["pid"], endpoint(self.run_dir)["epoch"]

    def unchanged(self) -> None:
        """The agent answers, and nothing is different."""
        with Client(self.run_dir, role="viewer") as client:
            assert until(client.hello).state_rev == 0
        assert self._state() == self.before

    def close(self) -> None:
        self._context.destroy(linger=0)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("fuzzed")
    with Trainer(folder / "r") as trainer:
        trainer.steps(3)
        until(lambda: (folder / "r" / "endpoint.json").exists())
        found = Watched(trainer)
        yield found
        found.close()
    end_agents(folder)


FRAMES = st.lists(st.binary(max_size=300), min_size=1, max_size=4)
JUNK: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8) | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
WHOLE: dict[str, Any] = msgspec.msgpack.decode(wire.pack(wire.Send(request=CommandRequest("pause-it-now", Pause()))))


@st.composite
def almost(draw: st.DrawFn) -> list[bytes]:
    """A command of which one part is something else: never a command."""
    message = msgspec.msgpack.decode(msgspec.msgpack.encode(WHOLE))
    part = draw(st.sampled_from(["ask", "request", "protocol", "kind", "surprise"]))
    junk = draw(
        JUNK.filter(lambda value: value not in (1, "send", "confirm", "status", "pause", "resume", "checkpoint"))
    )
    match part:
        case "kind":
            message["request"]["command"]["kind"] = junk
        case "surprise":
            message["request"][draw(st.text(min_size=15, max_size=20))] = junk
        case _:
            message[part] = junk
    return [wire.pack(message)]


@MANY
@given(frames=FRAMES | almost())
def test_frames_on_the_commands_socket_change_nothing(watched: Watched, frames: list[bytes]) -> None:
    watched.inside[COMMANDS].send_multipart(frames)
    reply = wire.replies.decode(watched.inside[COMMANDS].recv())
    assert reply.problem is not None and reply.status is None


@st.composite
def almost_a_question(draw: st.DrawFn) -> list[bytes]:
    """A question about segments of which one part is something else: a path, a number, nothing."""
    whole: wire.Question = draw(st.sampled_from([wire.AskSegments(after=0), wire.AskPiece(digest="0" * 32, offset=0)]))
    message = msgspec.msgpack.decode(wire.pack(whole))
    part = draw(st.sampled_from([*(key for key in message if key != "token"), "surprise"]))
    paths = st.sampled_from(["../keys/server.key", "/etc/passwd", "0" * 31 + "/", "journal.db", "0" * 32 + ".parquet"])
    kept = (message.get(part), "hello", "segments", "piece", "range", "status")
    message[part] = draw((JUNK | paths).filter(lambda value: value not in kept and not _in_bounds(value)))
    return [wire.pack(message)]


def _in_bounds(value: object) -> bool:
    """Whether it would do as an offset or a seq."""
    return isinstance(value, int | float) and value >= 0


@MANY
@given(frames=FRAMES | almost_a_question())
def test_frames_on_the_questions_socket_change_nothing(watched: Watched, frames: list[bytes]) -> None:
    watched.inside[QUESTIONS].send_multipart(frames)
    assert wire.replies.decode(watched.inside[QUESTIONS].recv()).problem is not None


@MANY
@given(frames=FRAMES)
def test_frames_on_the_news_socket_change_nothing(watched: Watched, frames: list[bytes]) -> None:
    watched.inside[NEWS].send_multipart(frames)


@FEW
@given(name=st.sampled_from([NEWS, QUESTIONS, COMMANDS]), greeted=st.booleans(), data=st.binary(max_size=400))
def test_bytes_before_the_handshake_change_nothing(watched: Watched, name: str, greeted: bool, data: bytes) -> None:
    """With and without the greeting of ZMTP 3.1 and CURVE before them."""
    host, port = str(endpoint(watched.run_dir)[name]).removeprefix("tcp://").split(":")
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE" + bytes(15) + b"\x00" + bytes(31)
    with contextlib.suppress(OSError), plain.create_connection((host, int(port)), timeout=5) as stray:
        stray.sendall((greeting if greeted else b"") + data)


def test_and_after_all_of_it_nothing_has_changed(watched: Watched) -> None:
    watched.unchanged()


@pytest.mark.parametrize("name", [NEWS, QUESTIONS, COMMANDS])
def test_many_subscriptions_and_parts_leave_the_agent_answering(watched: Watched, name: str, tmp_path: Path) -> None:
    for i in range(300):
        with contextlib.suppress(zmq.Again):
            watched.inside[name].send_multipart([b"\x01%d" % i, *[b""] * 40], zmq.NOBLOCK)
    watched.unchanged()
