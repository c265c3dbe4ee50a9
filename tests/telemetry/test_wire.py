"""What reaches the agent badly changes nothing and is counted; who has no key is not heard at all."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket as socket_module
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest
import zmq

from tests.telemetry.trainers import REPO, Trainer
from tests.telemetry.waiting import until
from tests.telemetry.wires import answered, dealer, endpoint, stranger
from trainer_core.spec.commands import CommandRequest, Pause
from trainer_core.spec.errors import RunError
from trainer_core.telemetry import rundir, wire
from trainer_core.telemetry.auth import Key, make_keys, read_key
from trainer_core.telemetry.client import Client
from trainer_core.telemetry.commands_db import accepted
from trainer_core.telemetry.follower import Follower


@pytest.fixture
def trainer(run_dir: Path) -> Iterator[Trainer]:
    with Trainer(run_dir) as trainer:
        trainer.steps(3)
        until(lambda: (run_dir / "endpoint.json").exists())
        yield trainer


def refused_frames(run_dir: Path) -> int:
    """What the next heartbeat counts."""
    follower = Follower(run_dir)
    try:
        until(lambda: follower.poll(0.1) is not None and follower.heartbeat is not None)
        assert follower.heartbeat is not None
        return follower.heartbeat.refused_frames
    finally:
        follower.close()


def unharmed(trainer: Trainer) -> None:
    """The agent still answers, and the trainer was told nothing."""
    client = Client(trainer.run_dir)
    assert until(client.hello).last_seq >= 5
    client.close()
    assert trainer.taken == [] and accepted(trainer.run_dir) == []


HELLO = wire.pack(wire.AskHello(token=7))
PAUSE = wire.pack(wire.Send(token=7, request=CommandRequest("pause-it-now", Pause())))


@pytest.mark.parametrize("name", ["news", "questions", "commands"])
@pytest.mark.parametrize("key", [None, stranger()], ids=["no key", "an unknown key"])
def test_nobody_without_a_known_key_is_heard(trainer: Trainer, name: str, key: Key | None) -> None:
    with dealer(trainer.run_dir, name, key) as socket:
        assert answered(socket, [PAUSE if name == "commands" else HELLO]) is None
    unharmed(trainer)
    assert refused_frames(trainer.run_dir) > 0


def test_an_unknown_key_hears_no_news(trainer: Trainer) -> None:
    from trainer_core.telemetry.auth import secure_client

    context = zmq.Context()
    news = context.socket(zmq.SUB)
    secure_client(news, endpoint(trainer.run_dir)["server_key"], stranger())
    news.connect(endpoint(trainer.run_dir)["news"])
    news.subscribe(b"")
    trainer.steps(3)
    assert news.poll(1500) == 0
    context.destroy(linger=0)


def test_a_viewers_key_is_let_in_to_questions_and_not_to_commands(trainer: Trainer) -> None:
    with dealer(trainer.run_dir, "questions", "viewer") as socket:
        reply = answered(socket, [HELLO])
        assert reply is not None and wire.replies.decode(reply).token == 7
    with dealer(trainer.run_dir, "commands", "viewer") as socket:
        assert answered(socket, [PAUSE]) is None
    unharmed(trainer)


def test_a_wrong_server_key_gets_no_answer(trainer: Trainer) -> None:
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    own = read_key(trainer.run_dir, "operator")
    socket.curve_serverkey = stranger().public.encode()
    socket.curve_publickey, socket.curve_secretkey = own.public.encode(), own.secret.encode()
    socket.connect(endpoint(trainer.run_dir)["commands"])
    assert answered(socket, [PAUSE]) is None
    context.destroy(linger=0)
    unharmed(trainer)


def mangled() -> list[list[bytes]]:
    """Requests that are not: cut, padded, flipped, huge, of the wrong shape, type or version."""
    chance = random.Random(1)
    whole = msgspec.msgpack.decode(PAUSE)
    flipped = [bytes(b ^ (1 << chance.randrange(8)) if i == at else b for i, b in enumerate(PAUSE)) for at in range(3)]
    return [
        [b""],
        [PAUSE[:-3]],
        [PAUSE + b"x"],
        [PAUSE, PAUSE],
        [b"", PAUSE],
        [chance.randbytes(300)],
        [b"\x91" * 20_000],
        [bytes(wire.MOST_REQUEST_BYTES + 1)],
        [wire.pack(whole | {"surprise": 1})],
        [wire.pack(whole | {"protocol": 999})],
        [wire.pack(whole | {"ask": "format-disk"})],
        [wire.pack(whole | {"request": whole["request"] | {"actor": "root"}})],
        [wire.pack(whole | {"request": whole["request"] | {"ttl_s": float("nan")}})],
        [wire.pack(whole | {"request": whole["request"] | {"ttl_s": -1}})],
        [wire.pack(whole | {"request": whole["request"] | {"command": {"kind": "pause", "for": 3}}})],
        [wire.pack([1, 2, 3])],
        *[[frame] for frame in flipped],
    ]


def test_mangled_requests_change_nothing_and_are_counted(trainer: Trainer) -> None:
    before = refused_frames(trainer.run_dir)
    requests = mangled()
    for frames in requests:
        with dealer(trainer.run_dir, "commands", "operator") as socket:
            reply = answered(socket, frames)
            if reply is not None:
                told = wire.replies.decode(reply)
                assert told.problem is not None and "\n" not in told.problem.error
    unharmed(trainer)
    assert refused_frames(trainer.run_dir) >= before + len(requests) - 4


def test_a_message_of_megabytes_is_cut_off_at_the_socket(trainer: Trainer) -> None:
    with dealer(trainer.run_dir, "commands", "operator") as socket:
        socket.send(bytes(20_000_000))
        assert socket.poll(1500) == 0
    unharmed(trainer)


def test_a_storm_of_garbage_connections_leaves_the_agent_answering(trainer: Trainer) -> None:
    host, port = endpoint(trainer.run_dir)["commands"].removeprefix("tcp://").split(":")
    chance = random.Random(5)
    for _ in range(1500):
        with contextlib.suppress(OSError), socket_module.create_connection((host, int(port)), timeout=5) as stray:
            stray.sendall(chance.randbytes(200))
    unharmed(trainer)


def test_another_protocol_version_is_told_so(trainer: Trainer) -> None:
    with dealer(trainer.run_dir, "questions", "viewer") as socket:
        reply = answered(socket, [wire.pack(wire.AskHello(protocol=999, token=3))])
        assert reply is not None
        problem = wire.replies.decode(reply).problem
        assert problem is not None and "protocol 1" in problem.error


def test_ranges_are_bounded(trainer: Trainer) -> None:
    trainer.steps(5000)
    with dealer(trainer.run_dir, "questions", "viewer") as socket:
        reply = answered(socket, [wire.pack(wire.AskRange(token=1, first=1, last=10**9))])
        assert reply is not None and len(reply) < wire.MOST_BYTES + 64 * 1024
        answer = wire.replies.decode(reply).range
        assert answer is not None and 0 < len(answer.rows) <= wire.MOST_ROWS and answer.rows[0].seq == 1


def test_keys_and_endpoint_are_private_and_loose_ones_are_refused(trainer: Trainer) -> None:
    run_dir = trainer.run_dir
    assert stat.S_IMODE((run_dir / "keys").stat().st_mode) == 0o700
    for file in (*(run_dir / "keys").iterdir(), run_dir / "endpoint.json"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (run_dir / "keys" / "operator.key").chmod(0o644)
    with pytest.raises(RunError, match="644"):
        read_key(run_dir, "operator")
    with dealer(run_dir, "questions", read_loosely(run_dir, "operator")) as socket:
        assert answered(socket, [HELLO]) is None, "the agent does not honour a key that others could read"


def read_loosely(run_dir: Path, name: str) -> Key:
    return Key(**json.loads((run_dir / "keys" / f"{name}.key").read_text()))


def test_a_removed_key_is_refused_without_a_restart(trainer: Trainer) -> None:
    key = read_key(trainer.run_dir, "viewer")
    (trainer.run_dir / "keys" / "viewer.key").unlink()
    with dealer(trainer.run_dir, "questions", key) as socket:
        assert answered(socket, [HELLO]) is None


def test_keys_are_made_once(run_dir: Path) -> None:
    make_keys(run_dir)
    first = read_key(run_dir, "operator")
    make_keys(run_dir)
    assert read_key(run_dir, "operator") == first


# -- the agent as a process -------------------------------------------------------------------------------------------


def serving(run_dir: Path) -> "subprocess.Popen[str]":
    words = [sys.executable, "-m", "trainer_core.telemetry.agent", str(run_dir)]
    return subprocess.Popen(words, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_finished_run_can_be_served_by_hand_until_told_to_end(run_dir: Path) -> None:
    trainer = Trainer(run_dir, serves=False)
    trainer.steps(3)
    trainer.end()
    with serving(run_dir) as agent:
        until(lambda: (run_dir / "endpoint.json").exists())
        client = Client(run_dir, role="viewer")
        assert until(client.hello).last_seq == 6
        assert client.hello().status.state == "finished"
        client.close()
        agent.terminate()
        start = time.monotonic()
        assert agent.wait(5) == 0
        assert time.monotonic() - start < 2
    assert not rundir.status(run_dir).agent_alive


def test_a_second_agent_is_refused_in_one_sentence_and_the_first_serves_on(trainer: Trainer) -> None:
    with serving(trainer.run_dir) as second:
        said, _ = second.communicate(timeout=30)
        assert second.returncode == 1
    assert said.strip().count("\n") == 0 and f"{trainer.run_dir} is already served by process" in said
    unharmed(trainer)


def test_a_lingering_agent_ends_within_two_seconds_of_sigterm(run_dir: Path) -> None:
    trainer = Trainer(run_dir)
    until(lambda: (run_dir / "endpoint.json").exists())
    pid = endpoint(run_dir)["pid"]
    trainer.end()
    until(lambda: not rundir.status(run_dir).trainer_alive)
    assert rundir.status(run_dir).agent_alive
    os.kill(pid, signal.SIGTERM)
    until(lambda: not rundir.status(run_dir).agent_alive, within=2)


def test_the_agent_does_not_hold_the_trainers_standard_output_open(run_dir: Path) -> None:
    program = (
        "import sys, pathlib; from tests.telemetry import trainers as t; t.Trainer(pathlib.Path(sys.argv[1])).end()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(run_dir)], cwd=REPO, capture_output=True, timeout=30, check=True
    )
    assert done.stdout == b""


def test_an_agent_whose_run_was_removed_ends(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRID_AGENT_LINGER_S", "600")
    trainer = Trainer(run_dir)
    until(lambda: (run_dir / "endpoint.json").exists())
    agent = psutil.Process(endpoint(run_dir)["pid"])
    trainer.end()
    shutil.rmtree(run_dir)
    until(lambda: not agent.is_running() or agent.status() == psutil.STATUS_ZOMBIE, within=5)
