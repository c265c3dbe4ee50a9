"""The process that owns the sockets: tails the journal, publishes, answers, takes commands. Never touches training.

    python -m trainer_core.telemetry.agent RUN_DIR [--child]      --child: end of stdin means the trainer is gone

One thread, one poller, nothing that waits. It lingers ten minutes after the run, so that nobody loses the end, and
makes way when another trainer claims the run.
"""

import argparse
import contextlib
import json
import os
import secrets
import select
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import zmq

from trainer_core.spec.errors import UserError
from trainer_core.spec.records import CommandChanged, RunState
from trainer_core.telemetry import wire
from trainer_core.telemetry.auth import Gate, Key, make_keys, read_key, secure_client, secure_server
from trainer_core.telemetry.codec import PROTOCOL, CodecError, RawRow, decode_row
from trainer_core.telemetry.desk import Desk
from trainer_core.telemetry.journal import JournalError, JournalReader
from trainer_core.telemetry.rundir import AGENT_LOCK, RunInUse, RunLock, claim, held, holder_of, status_from

ENDPOINT = "endpoint.json"
LINGER_S = 600.0
"""Seconds an agent stays after its trainer; the environment variable HYBRID_AGENT_LINGER_S sets another value."""
_TICK_MS, _BEAT_S, _SELF_TEST_S = 25, 1.0, 10.0
_TAKE_OVER_S = 10.0
_FINAL = ("finished", "stopped", "failed")


class Agent:
    """Serves one run directory until told to go. ``child``: started by the trainer, with a pipe on stdin."""

    def __init__(
        self, run_dir: Path, *, child: bool, linger_s: float = LINGER_S, clock: Callable[[], float] = time.time
    ) -> None:
        self.run_dir, self._child, self._linger_s, self._clock = Path(run_dir), child, linger_s, clock
        self._lock = _lock_of(self.run_dir, child)
        self._journal = JournalReader(self.run_dir)
        make_keys(self.run_dir)
        self._epoch = secrets.token_hex(8)
        self._trainer_nonce = holder_of(self.run_dir).get("nonce")
        self._trainer_alive = held(self.run_dir)
        self._context: zmq.Context[Any] = zmq.Context()
        self._gate = Gate(self._context, self.run_dir)
        server = read_key(self.run_dir, "server")
        self.news = self._bound(zmq.XPUB, server, "viewer")
        self.asked = self._bound(zmq.ROUTER, server, "viewer")
        self.ordered = self._bound(zmq.ROUTER, server, "operator")
        self._poller = zmq.Poller()
        for socket in (self._gate.socket, self.news, self.asked, self.ordered):
            self._poller.register(socket, zmq.POLLIN)
        self.desk = Desk(self.run_dir, lambda: self._trainer_alive, clock)
        for row in self._journal.events("command"):
            self._hear(row.record)
        if not self._trainer_alive:
            for row in self._journal.events("run-state", newest=1):
                self._hear(row.record)
        self._last_seq = self._journal.last_seq()
        self._version = -1
        self._refused_frames = 0
        self._queued: int | None = None
        self._lost = 0
        self._gone_since: float | None = None
        self.stopping = False
        self._self_test(server)
        self._publish_endpoint(server)

    def _bound(self, kind: int, server: Key, domain: str) -> "zmq.Socket[Any]":
        socket: zmq.Socket[Any] = self._context.socket(kind)
        socket.linger = 0
        socket.maxmsgsize = 4 * wire.MOST_REQUEST_BYTES
        if kind == zmq.XPUB:
            socket.setsockopt(zmq.XPUB_WELCOME_MSG, wire.TOPIC_WELCOME)
            socket.sndhwm = 2000
        secure_server(socket, server, domain)
        self._gate.watch(socket)
        socket.bind("tcp://127.0.0.1:*")
        return socket

    # -- the loop ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until told to go, until the linger time is over, or until another trainer brings its own agent."""
        beat_due = 0.0
        while not self.stopping:
            self.serve_once(_TICK_MS)
            self._tail()
            now = time.monotonic()
            if now >= beat_due:
                beat_due = now + _BEAT_S
                self._watch_trainer(now)
                self._beat()

    def serve_once(self, timeout_ms: int) -> None:
        """Answer what has arrived."""
        ready = dict(self._poller.poll(timeout_ms))
        self._gate.count_failed()
        if self._gate.socket in ready:
            self._gate.answer()
        if self.news in ready:
            with contextlib.suppress(zmq.Again):
                self.news.recv_multipart(zmq.NOBLOCK)  # a subscription: nothing to do, the welcome goes by itself
        if self.asked in ready:
            self._serve(self.asked, wire.questions, self._answer)
        if self.ordered in ready:
            self._serve(self.ordered, wire.orders, self._obey)

    def _serve(
        self,
        socket: "zmq.Socket[Any]",
        decoder: "msgspec.msgpack.Decoder[Any]",
        answer: Callable[[Any, str], wire.Reply],
    ) -> None:
        frames = socket.recv_multipart(zmq.NOBLOCK, copy=False)
        client, body = frames[0].bytes, frames[-1].bytes if len(frames) == 2 else b""
        token = 0
        if len(frames) != 2 or len(body) > wire.MOST_REQUEST_BYTES:
            reply = wire.Reply(
                0, problem=wire.Problem(f"a request is one frame of at most {wire.MOST_REQUEST_BYTES} bytes")
            )
            self._refused_frames += 1
        else:
            try:
                token = _token(body)
                message = decoder.decode(body)
                reply = answer(message, str(frames[-1].get("User-Id")))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                self._refused_frames += 1
                reply = wire.Reply(token, problem=wire.Problem(f"not a request of this protocol: {error}"))
            except sqlite3.Error as error:
                print(f"a command could not be stored: {error}", file=sys.stderr)
                return  # nothing was accepted; no answer means unknown, and the client asks again with the same id
        with contextlib.suppress(zmq.Again, zmq.ZMQError):  # a client that has gone or does not read loses its reply
            socket.send_multipart([client, wire.pack(reply)], zmq.NOBLOCK)

    def _answer(self, question: wire.Question, actor: str) -> wire.Reply:
        if question.protocol != PROTOCOL:
            return wire.Reply(question.token, problem=wire.Problem(f"this agent speaks protocol {PROTOCOL}"))
        match question:
            case wire.AskHello():
                return wire.Reply(question.token, hello=self._hello(actor))
            case wire.AskRange(first=first, last=last):
                rows = _bounded(self._journal.raw_rows(first - 1, wire.MOST_ROWS, last))
                return wire.Reply(question.token, range=wire.RangeReply(self._journal.journal_id, self._last_seq, rows))
            case wire.AskStatus(command_id=command_id):
                return wire.Reply(question.token, status=self.desk.status(command_id))

    def _obey(self, order: wire.Order, actor: str) -> wire.Reply:
        if order.protocol != PROTOCOL:
            return wire.Reply(order.token, problem=wire.Problem(f"this agent speaks protocol {PROTOCOL}"))
        self._trainer_alive = held(self.run_dir)
        self._tail()
        match order:
            case wire.Send(request=request):
                return wire.Reply(order.token, status=self.desk.send(request, actor))
            case wire.Confirm(command_id=command_id):
                return wire.Reply(order.token, status=self.desk.confirm(command_id, actor))
            case wire.AskStatus(command_id=command_id):
                return wire.Reply(order.token, status=self.desk.status(command_id))

    def _hello(self, actor: str) -> wire.Hello:
        status = status_from(self._journal, self._trainer_alive, True, self._clock())
        return wire.Hello(
            PROTOCOL,
            self._journal.journal_id,
            self._epoch,
            self._last_seq,
            self.desk.state_rev,
            self.run_dir.name,
            actor,
            status,
        )

    # -- news -------------------------------------------------------------------------------------------------------

    def _tail(self) -> None:
        """Publish what the trainer has committed since."""
        version = self._journal.version()
        if version == self._version:
            return
        self._version = version
        while rows := self._journal.raw_rows(self._last_seq, wire.MOST_ROWS):
            while rows:
                batch = _bounded(rows)
                self._publish(batch)
                rows = rows[len(batch) :]

    def _publish(self, rows: list[RawRow]) -> None:
        for raw in rows:
            if raw.kind in ("command", "run-state", "lost"):
                with contextlib.suppress(CodecError):  # a damaged row is the reader's to report
                    self._hear(decode_row(raw).record)
        header = wire.Header(PROTOCOL, self._journal.journal_id, self._epoch, rows[0].seq, rows[-1].seq, len(rows))
        self._last_seq = rows[-1].seq
        self._send_news(wire.TOPIC_ROWS, wire.pack(header), wire.pack(rows))

    def _send_news(self, *frames: bytes) -> None:
        with contextlib.suppress(zmq.Again):
            self.news.send_multipart(frames, zmq.NOBLOCK)

    def _hear(self, record: object) -> None:
        if isinstance(record, CommandChanged):
            self.desk.heard(record)
        elif isinstance(record, RunState):
            ended = record.state in _FINAL
            self.desk.run_ended = f"the run has {record.state}: {record.because}" if ended else None
        else:
            self._lost += getattr(record, "count", 0)

    def _beat(self) -> None:
        beat = wire.Heartbeat(
            PROTOCOL,
            self._journal.journal_id,
            self._epoch,
            self._last_seq,
            self.desk.state_rev,
            status_from(self._journal, self._trainer_alive, True, self._clock()),
            self._queued,
            self._lost,
            self._refused_frames + self._gate.denied,
        )
        self._send_news(wire.TOPIC_BEAT, wire.pack(beat))

    # -- the trainer ------------------------------------------------------------------------------------------------

    def _watch_trainer(self, now: float) -> None:
        holder = holder_of(self.run_dir).get("nonce")
        self._trainer_alive = held(self.run_dir)
        if self._child:
            self._read_pipe()
        if holder != self._trainer_nonce and self._trainer_alive:
            self.stopping = True  # another trainer: it starts its own agent
        if self._trainer_alive:
            self._gone_since = None
        elif not self._journal.in_place():
            self.stopping = True  # the run directory was removed: there is nothing left to serve
        elif self._gone_since is None:
            self._gone_since = now
        elif now - self._gone_since > self._linger_s and self._child:
            self.stopping = True

    def _read_pipe(self) -> None:
        """The trainer writes its queue length once a second; the end of the pipe needs no word, the lock tells."""
        while select.select([0], [], [], 0)[0]:
            line = os.read(0, 4096)
            if not line:
                self._child_pipe_ended()
                return
            with contextlib.suppress(ValueError):
                self._queued = int(line.split()[-1])

    def _child_pipe_ended(self) -> None:
        self._queued = None
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        self._read_pipe = lambda: None  # type: ignore[method-assign]

    # -- start and end ----------------------------------------------------------------------------------------------

    def _self_test(self, server: Key) -> None:
        """A random key must be refused: CURVE without ZAP would let it in. Raises UserError when it is not."""
        public, secret = zmq.curve_keypair()
        stranger = self._context.socket(zmq.DEALER)
        stranger.linger = 0
        secure_client(stranger, server.public, Key(public.decode(), secret.decode()))
        stranger.connect(_address(self.ordered))
        stranger.send(wire.pack(wire.AskHello()), zmq.NOBLOCK)
        deadline = time.monotonic() + _SELF_TEST_S
        try:
            while self._gate.denied == 0:
                if self.ordered in dict(self._poller.poll(_TICK_MS)) and self.ordered.poll(0):
                    raise UserError("the agent's self-test failed: a random key was let in; it does not start")
                if self._gate.socket.poll(0):
                    self._gate.answer()
                if time.monotonic() > deadline:
                    raise UserError("the agent's self-test failed: no key was asked for; it does not start")
        finally:
            stranger.close()
        self._gate.denied = 0

    def _publish_endpoint(self, server: Key) -> None:
        """endpoint.json, whole or not there."""
        content = {
            "protocol": PROTOCOL,
            "news": _address(self.news),
            "questions": _address(self.asked),
            "commands": _address(self.ordered),
            "server_key": server.public,
            "journal_id": self._journal.journal_id,
            "epoch": self._epoch,
            "pid": os.getpid(),
            "started": time.time(),
        }
        temporary = self.run_dir / f".{ENDPOINT}.{os.getpid()}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file)
        os.replace(temporary, self.run_dir / ENDPOINT)

    def close(self) -> None:
        """Withdraw the endpoint and let go."""
        with contextlib.suppress(OSError, ValueError):
            if json.loads((self.run_dir / ENDPOINT).read_text())["epoch"] == self._epoch:
                (self.run_dir / ENDPOINT).unlink()
        self._context.destroy(linger=0)
        self.desk.close()
        self._journal.close()
        self._lock.close()


def _lock_of(run_dir: Path, child: bool) -> RunLock:
    """The agent's lock. A living trainer's child waits for an older agent to make way. Raises RunInUse."""
    deadline = time.monotonic() + _TAKE_OVER_S
    while True:
        try:
            return claim(run_dir, AGENT_LOCK)
        except RunInUse:
            if not child or not held(run_dir) or time.monotonic() > deadline:
                raise


def _token(body: bytes) -> int:
    """The token of a request whose rest may be wrong, so that even a refusal reaches its asker."""
    return msgspec.msgpack.decode(body, type=_TokenOnly).token


class _TokenOnly(msgspec.Struct):
    token: int = 0


def _address(socket: "zmq.Socket[Any]") -> str:
    return str(socket.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0"))  # type: ignore[union-attr]


def _bounded(rows: list[RawRow]) -> list[RawRow]:
    """As many leading rows as fit into one message; at least one."""
    total = 0
    for count, row in enumerate(rows):
        total += len(row.body) + 64
        if total > wire.MOST_BYTES and count:
            return rows[:count]
    return rows


def serve(run_dir: Path, *, child: bool = False, linger_s: float = LINGER_S) -> None:
    """Serve a run directory until SIGINT or SIGTERM. Raises UserError (RunInUse when an agent already does)."""
    agent = Agent(run_dir, child=child, linger_s=linger_s)

    def stop(number: int, frame: FrameType | None) -> None:
        agent.stopping = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        agent.run()
    finally:
        agent.close()


def main() -> int:
    """Entry point of the agent process."""
    parser = argparse.ArgumentParser(prog="trainer_core.telemetry.agent")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--child", action="store_true")
    options = parser.parse_args()
    try:
        serve(options.run_dir, child=options.child, linger_s=float(os.environ.get("HYBRID_AGENT_LINGER_S", LINGER_S)))
    except (UserError, JournalError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
