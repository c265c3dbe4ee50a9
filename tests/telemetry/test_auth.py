"""Who is let in where, with real sockets and processes: the whole matrix, before, while and after a key is revoked."""

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
import zmq
from zmq.utils import z85
from zmq.utils.monitor import recv_monitor_message

from tests.conftest import end_agents
from tests.telemetry.trainers import Trainer
from tests.telemetry.waiting import until
from tests.telemetry.wires import endpoint, stranger
from trainer_core.spec.commands import CommandRequest, CommandState, Pause, Refusal, Stop
from trainer_core.spec.errors import RunError, UserError
from trainer_core.spec.records import Row
from trainer_core.telemetry import sockets as sockets_module
from trainer_core.telemetry import wire
from trainer_core.telemetry.agent import Agent
from trainer_core.telemetry.auth import COMMANDS, NEWS, QUESTIONS, Gate, secure_client
from trainer_core.telemetry.client import Client
from trainer_core.telemetry.commands_db import accepted
from trainer_core.telemetry.follower import Follower
from trainer_core.telemetry.keys import Key, create, make_keys, read_held, read_key, revoke
from trainer_core.telemetry.listening import LOOPBACK
from trainer_core.telemetry.sockets import Sockets

HELLO = wire.pack(wire.AskHello(token=7))
STATUS = wire.pack(wire.AskStatus(token=7, command_id="unheard-of"))
PAUSE = wire.pack(wire.Send(token=7, request=CommandRequest("pause-it-now", Pause())))
ASKED = {QUESTIONS: HELLO, COMMANDS: STATUS}
FATE = zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.DISCONNECTED | zmq.Event.HANDSHAKE_FAILED_AUTH


@contextmanager
def peer(run_dir: Path, name: str, key: Key | None, server_key: str | None = None) -> Iterator["Peer"]:
    """A raw client on one of the agent's sockets; without a key it speaks NULL."""
    context: zmq.Context[Any] = zmq.Context()
    socket = context.socket(zmq.SUB if name == NEWS else zmq.DEALER)
    socket.linger = 0
    if key is not None:
        secure_client(socket, server_key or endpoint(run_dir)["server_key"], key)
    monitor = socket.get_monitor_socket(FATE)
    if name == NEWS:
        socket.subscribe(b"")
    socket.connect(endpoint(run_dir)[name])
    try:
        yield Peer(socket, monitor)
    finally:
        socket.disable_monitor()
        context.destroy(linger=0)


class Peer:
    """What a raw client meets with."""

    def __init__(self, socket: "zmq.Socket[Any]", monitor: "zmq.Socket[Any]") -> None:
        self.socket, self._monitor = socket, monitor

    def let_in(self, within_ms: int = 10_000) -> bool:
        """How its next handshake ends."""
        assert self._monitor.poll(within_ms), "neither let in nor turned away"
        return bool(recv_monitor_message(self._monitor)["event"] == zmq.Event.HANDSHAKE_SUCCEEDED)

    def heard(self, name: str, within_ms: int = 5000) -> bool:
        """Whether it gets news, or an answer to its question."""
        if name != NEWS:
            with contextlib.suppress(zmq.Again):  # one that was turned away has nobody to send to
                self.socket.send(ASKED[name], zmq.NOBLOCK)
        return bool(self.socket.poll(within_ms))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    """One trainer with its agent for all cases that leave nothing behind."""
    folder = tmp_path_factory.mktemp("served")
    with Trainer(folder / "r") as trainer:
        trainer.steps(3)
        until(lambda: (folder / "r" / "endpoint.json").exists())
        yield trainer
    end_agents(folder)


def key_of(run_dir: Path, who: str) -> Key | None:
    """The key that somebody of the table shows."""
    match who.split():
        case ["nobody"]:
            return None
        case ["stranger"]:
            return stranger()
        case ["the", "run's", role]:
            return read_key(run_dir, role)
        case ["a", "named", role]:
            name = f"n-{role}-{time.monotonic_ns()}"
            return read_held(create(run_dir, name, role)).pair
        case ["a", "revoked", role]:
            name = f"r-{role}-{time.monotonic_ns()}"
            pair = read_held(create(run_dir, name, role)).pair
            revoke(run_dir, name)
            return pair
        case _:
            raise AssertionError(who)


MATRIX = {
    #                      news   questions commands
    "nobody":             (False, False, False),
    "stranger":           (False, False, False),
    "the run's viewer":   (True, True, False),
    "the run's operator": (True, True, True),
    "a named viewer":     (True, True, False),
    "a named operator":   (True, True, True),
    "a revoked viewer":   (False, False, False),
    "a revoked operator": (False, False, False),
}  # fmt: skip


@pytest.mark.parametrize("name", [NEWS, QUESTIONS, COMMANDS])
@pytest.mark.parametrize("who", MATRIX)
def test_the_matrix(served: Trainer, who: str, name: str) -> None:
    allowed = dict(zip((NEWS, QUESTIONS, COMMANDS), MATRIX[who], strict=True))[name]
    with peer(served.run_dir, name, key_of(served.run_dir, who)) as client:
        assert client.let_in() is allowed
        assert client.heard(name, 5000 if allowed else 100) is allowed


@pytest.mark.parametrize("name", [NEWS, QUESTIONS, COMMANDS])
def test_an_agent_with_another_server_key_is_not_spoken_to(served: Trainer, name: str) -> None:
    own = read_key(served.run_dir, "operator")
    with peer(served.run_dir, name, own, stranger().public) as client:
        assert not client.let_in() and not client.heard(name, 100)


def refused(run_dir: Path) -> wire.Refused:
    """What the next heartbeat counts."""
    with Follower(run_dir) as follower:
        until(lambda: follower.poll(0.1) is not None and follower.heartbeat is not None)
        assert follower.heartbeat is not None
        assert follower.heartbeat.refused_frames == follower.heartbeat.refused.total
        return follower.heartbeat.refused


BAD = [
    ("oversize", [bytes(wire.MOST_REQUEST_BYTES + 1)], "at most 65536 bytes"),
    ("malformed", [HELLO, HELLO], "one frame"),
    ("malformed", [b"\xc1"], "not a request"),
]


@pytest.mark.parametrize("name", [QUESTIONS, COMMANDS])
def test_what_is_too_long_or_no_request_is_answered_and_counted(served: Trainer, name: str) -> None:
    before = refused(served.run_dir)
    with peer(served.run_dir, name, read_key(served.run_dir, "operator")) as client:
        for _, frames, says in BAD:
            client.socket.send_multipart(frames)
            reply = wire.replies.decode(client.socket.recv())
            assert reply.problem is not None and says in reply.problem.error
    until(lambda: refused(served.run_dir).oversize == before.oversize + 1)
    assert refused(served.run_dir).malformed == before.malformed + 2


@pytest.mark.parametrize("name", [NEWS, QUESTIONS, COMMANDS])
def test_a_connection_that_announces_a_quarter_of_a_mebibyte_is_cut(served: Trainer, name: str) -> None:
    context: zmq.Context[Any] = zmq.Context()
    socket = context.socket(zmq.XSUB if name == NEWS else zmq.DEALER)
    secure_client(socket, endpoint(served.run_dir)["server_key"], read_key(served.run_dir, "operator"))
    client = Peer(socket, socket.get_monitor_socket(FATE))
    socket.connect(endpoint(served.run_dir)[name])
    assert client.let_in()
    socket.send(b"\x02" * (sockets_module.MOST_FRAME_BYTES + 1))
    assert not client.let_in(), "cut off"
    socket.disable_monitor()
    context.destroy(linger=0)
    with Client(served.run_dir) as other:
        assert other.hello() is not None


def test_a_flood_from_one_key_is_held_back_and_counted_and_others_are_served(served: Trainer) -> None:
    pair = read_held(create(served.run_dir, "flooding", "operator")).pair
    with peer(served.run_dir, COMMANDS, pair) as client, Client(served.run_dir, role="operator") as other:
        replies = []
        for _ in range(6):  # never more under way than the sockets hold
            for _ in range(500):
                client.socket.send(STATUS)
            assert other.hello() is not None
            replies += [wire.replies.decode(client.socket.recv()) for _ in range(500)]
        sent = other.send(CommandRequest("in-between", Pause()))
        assert sent.state in (CommandState.ACCEPTED, CommandState.APPLYING, CommandState.APPLIED)
    held_back = [reply for reply in replies if reply.problem is not None]
    assert held_back and len(replies) - len(held_back) >= 400
    assert {reply.problem.refusal for reply in held_back if reply.problem} == {Refusal.RATE}
    until(lambda: refused(served.run_dir).flooding >= len(held_back))


# -- revoked while connected ------------------------------------------------------------------------------------------


@pytest.fixture
def trainer(run_dir: Path) -> Iterator[Trainer]:
    with Trainer(run_dir) as trainer:
        trainer.steps(3)
        until(lambda: (run_dir / "endpoint.json").exists())
        yield trainer


def there(run_dir: Path) -> str:
    """HOST:PORT of the run's agent, as another machine would call it."""
    return str(endpoint(run_dir)["news"]).removeprefix("tcp://")


def test_an_operator_who_is_revoked_while_connected_gives_no_further_command(trainer: Trainer) -> None:
    run_dir = trainer.run_dir
    file = create(run_dir, "ann", "operator", run_dir / "ann.json")
    with Client(there(run_dir), key_file=file) as ann:
        assert ann.send(CommandRequest("before-it", Pause())).actor == "ann"
        assert until(lambda: ann.status("before-it").state is CommandState.APPLIED)
        pid, epoch = endpoint(run_dir)["pid"], endpoint(run_dir)["epoch"]
        revoke(run_dir, "ann")
        until(lambda: endpoint(run_dir)["epoch"] != epoch)
        after = ann.send(CommandRequest("after-it", Pause()))
        assert (after.state, after.refusal) == (CommandState.REJECTED, Refusal.AUTH)
        assert ann.hello() is None and ann.status("before-it").state is None
    assert endpoint(run_dir)["pid"] == pid, "no restart"
    assert [taken.request.command_id for taken in trainer.taken] == ["before-it"]
    assert [command.actor for _, command in accepted(run_dir)] == ["ann"]


def test_a_revoked_viewer_hears_no_further_row_and_the_others_miss_none(trainer: Trainer) -> None:
    run_dir = trainer.run_dir
    stays = Follower(there(run_dir), key_file=create(run_dir, "bob", "viewer"))
    at_home = Follower(run_dir)
    rows: dict[str, list[Row]] = {"bob": [], "home": []}

    def all_heard() -> bool:
        for name, follower in (("bob", stays), ("home", at_home)):
            rows[name] += follower.poll(0.02)
        return all(heard and heard[-1].seq == trainer.step + 2 for heard in rows.values())

    for name in ("ann-1", "ann-2"):
        file = create(run_dir, name, "viewer", run_dir / f"{name}.json")
        with Follower(there(run_dir), after_seq=trainer.step + 2, key_file=file) as goes:
            until(lambda: goes.poll(0.02) is not None and goes.live)
            epoch = endpoint(run_dir)["epoch"]
            revoke(run_dir, name)
            until(lambda: endpoint(run_dir)["epoch"] != epoch)  # noqa: B023
            for _ in range(5):
                trainer.steps(20)
                until(all_heard)
            with pytest.raises(RunError, match="not let in"):
                until(lambda: goes.poll(0.1))
    assert [row.seq for row in rows["bob"]] == [row.seq for row in rows["home"]] == list(range(1, trainer.step + 3))
    stays.close()
    at_home.close()


def test_what_a_revoked_operator_had_not_confirmed_is_confirmed_by_nobody(trainer: Trainer) -> None:
    run_dir = trainer.run_dir
    with Client(run_dir, key_file=create(run_dir, "ann", "operator")) as ann:
        assert ann.send(CommandRequest("stop-it-now", Stop())).state is CommandState.RECEIVED
        epoch = endpoint(run_dir)["epoch"]
        revoke(run_dir, "ann")
        until(lambda: endpoint(run_dir)["epoch"] != epoch)
    with Client(run_dir, key_file=create(run_dir, "ann", "operator")) as another:
        assert another.hello() is not None
        assert another.confirm("stop-it-now").state is None, "a key of the same name is not the same key"
    assert accepted(run_dir) == [] and trainer.taken == []


def test_every_message_is_checked_not_only_the_handshake(run_dir: Path) -> None:
    trainer = Trainer(run_dir, serves=False)
    agent = Agent(run_dir, child=False)
    held = read_held(create(run_dir, "ann", "operator"))

    def answer(client: Peer, request: bytes) -> wire.Reply:
        client.socket.send(request)
        until(lambda: agent.serve_once(10) is None and client.socket.poll(0))
        return wire.replies.decode(client.socket.recv())

    with peer(run_dir, COMMANDS, held.pair) as client:
        assert answer(client, STATUS).status is not None
        revoke(run_dir, "ann")  # and the agent has not looked yet
        told = answer(client, PAUSE)
        assert told.token == 7 and told.problem is not None and told.problem.refusal is Refusal.AUTH
        assert agent.refused().unauthenticated == 1 and accepted(run_dir) == []
        agent.cut_revoked()
        client.socket.send(STATUS)
        for _ in range(20):
            agent.serve_once(10)
        assert not client.socket.poll(0), "and then it is cut off"
    agent.close()
    trainer.close()


def test_a_key_for_another_run_is_told_so(trainer: Trainer, tmp_path: Path) -> None:
    file = create(tmp_path / "other", "ann", "viewer")
    with Client(trainer.run_dir, key_file=file) as client, pytest.raises(RunError, match="ann is not for"):
        client.hello()


# -- the self-test ----------------------------------------------------------------------------------------------------


class Lax(Gate):
    """A gate that lets in more than it should: everybody on some sockets, or the viewer's key on commands."""

    open_to: tuple[bytes, ...] = ()
    viewer = ""

    def answer(self) -> None:
        version, sequence, domain, *_, public = self.socket.recv_multipart()
        viewers = domain == b"commands" and z85.encode(public).decode() == self.viewer
        code = b"200" if domain in self.open_to or (viewers and b"viewers" in self.open_to) else b"400"
        self.socket.send_multipart([version, sequence, code, b"", b"x", b""])


class Deaf(Gate):
    """A gate that is asked and never answers."""

    def answer(self) -> None:
        self.socket.recv_multipart()


@pytest.mark.parametrize(
    ("open_to", "says"),
    [
        ((b"news",), "a random key on news was let in"),
        ((b"questions",), "a random key on questions was let in"),
        ((b"commands",), "on commands was let in"),
        ((b"viewers",), "the viewer's key on commands was let in"),
    ],
)
def test_an_agent_whose_gate_is_lax_does_not_start(tmp_path: Path, open_to: tuple[bytes, ...], says: str) -> None:
    make_keys(tmp_path)
    context: zmq.Context[Any] = zmq.Context()
    gate = Lax(context, tmp_path)
    gate.open_to, gate.viewer = open_to, read_key(tmp_path, "viewer").public
    with pytest.raises(UserError, match=f"self-test failed: .*{says}"):
        Sockets(context, gate, read_key(tmp_path, "server"), read_key(tmp_path, "viewer"), LOOPBACK)
    context.destroy(linger=0)


def test_an_agent_whose_gate_says_nothing_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets_module, "_SELF_TEST_S", 0.3)
    make_keys(tmp_path)
    context: zmq.Context[Any] = zmq.Context()
    gate = Deaf(context, tmp_path)
    with pytest.raises(UserError, match="not refused"):
        Sockets(context, gate, read_key(tmp_path, "server"), read_key(tmp_path, "viewer"), LOOPBACK)
    context.destroy(linger=0)


class Late(zmq.Socket[Any]):
    """libzmq gives a port back some time after close: this one never."""

    def close(self, linger: int | None = None) -> None:
        pass


class LateContext(zmq.Context[Any]):
    """Its sockets close when it ends."""

    made: ClassVar[list[zmq.Socket[Any]]] = []

    def socket(self, *kind: Any, **options: Any) -> Any:
        self.made.append(super().socket(*kind, socket_class=Late, **options))
        return self.made[-1]

    def end(self) -> None:
        for socket in self.made:
            zmq.Socket.close(socket, 0)
        self.term()


def test_an_agent_needs_no_port_back_that_it_has_only_tried(tmp_path: Path) -> None:
    """On a busy machine libzmq had not given a tried port back after fifty tries: the agent did not start."""
    make_keys(tmp_path)
    context = LateContext()
    gate = Gate(context, tmp_path)
    sockets = Sockets(context, gate, read_key(tmp_path, "server"), read_key(tmp_path, "viewer"), LOOPBACK)
    ports = sorted(int(address.rpartition(":")[2]) for address in sockets.addresses.values())
    assert ports == list(range(ports[0], ports[0] + 3))
    context.end()


def test_old_heartbeats_count_nothing_in_particular() -> None:
    """An agent of before the counts: what it does not say is zero."""
    assert msgspec.convert({}, wire.Refused).total == 0
