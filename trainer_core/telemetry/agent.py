"""The process that owns the sockets: tails the journal, publishes, answers, takes commands. Never touches training.

    python -m trainer_core.telemetry.agent RUN_DIR [--child] [--listen HOST[:PORT]]

--child: end of stdin means the trainer is gone. One thread, one poller, nothing that waits. It lingers ten minutes
after the run, so that nobody loses the end, and makes way when another trainer claims the run.
"""

import argparse
import contextlib
import math
import os
import secrets
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import zmq

from trainer_core.spec.commands import Refusal
from trainer_core.spec.errors import UserError
from trainer_core.spec.records import CommandChanged, RunState
from trainer_core.telemetry import segment_transfer, wire
from trainer_core.telemetry.auth import COMMANDS, QUESTIONS, Gate
from trainer_core.telemetry.codec import PROTOCOL, CodecError, RawRow, decode_row
from trainer_core.telemetry.desk import Desk
from trainer_core.telemetry.endpoint import Endpoint, says_epoch, withdraw_endpoint, write_endpoint
from trainer_core.telemetry.journal import JournalError, JournalReader
from trainer_core.telemetry.keys import Holder, make_keys, read_key
from trainer_core.telemetry.learning_rate import present_learning_rate
from trainer_core.telemetry.listening import permitted_meanwhile
from trainer_core.telemetry.pace import Pace
from trainer_core.telemetry.rundir import AGENT_LOCK, RunInUse, RunLock, claim, held, holder_of, status_from
from trainer_core.telemetry.sockets import Sockets
from trainer_core.telemetry.trainer_pipe import TrainerPipe

LINGER_S = 600.0
"""Seconds an agent stays after its trainer; the environment variable HYBRID_AGENT_LINGER_S sets another value."""
_TICK_MS, _BEAT_S = 25, 1.0
_PACES = {QUESTIONS: (400.0, 2000.0), COMMANDS: (100.0, 400.0)}
"""Requests a second and at once that one key may make; commands themselves have a finer bound (desk.py)."""
_TAKE_OVER_S = 10.0
_FINAL = ("finished", "stopped", "failed")


class Agent:
    """Serves one run directory until told to go. ``child``: started by the trainer, with a pipe on stdin."""

    def __init__(
        self,
        run_dir: Path,
        *,
        child: bool,
        linger_s: float = LINGER_S,
        clock: Callable[[], float] = time.time,
        listen: str | None = None,
    ) -> None:
        self.run_dir, self._child, self._linger_s, self._clock = Path(run_dir), child, linger_s, clock
        place, self._waits_for_key = permitted_meanwhile(self.run_dir, listen, child)
        self._lock = _lock_of(self.run_dir, child)
        self._journal = JournalReader(self.run_dir)
        make_keys(self.run_dir)
        self._epoch = secrets.token_hex(8)
        self._trainer_nonce = holder_of(self.run_dir).get("nonce")
        self._trainer_alive = held(self.run_dir)
        self.desk = Desk(
            self.run_dir, lambda: self._trainer_alive, clock, partial(present_learning_rate, self._journal)
        )
        ended = [] if self._trainer_alive else self._journal.events("run-state", newest=1)
        for row in (*self._journal.events("command"), *ended):
            self._hear(row.record)
        self._last_seq = self._journal.last_seq()
        self._version = -1
        self._refused = Counter[str]()
        self._paces = {name: Pace(*bounds, clock) for name, bounds in _PACES.items()}
        self._pipe = TrainerPipe()
        self._lost = 0
        self._gone_since: float | None = None
        self.stopping = False
        self._context: zmq.Context[Any] = zmq.Context()
        self.gate = Gate(self._context, self.run_dir)
        self._server = read_key(self.run_dir, "server")
        viewer = read_key(self.run_dir, "viewer")
        self.sockets = Sockets(self._context, self.gate, self._server, viewer, place)
        self._open_doors()

    def _open_doors(self) -> None:
        """Poll the sockets that are bound now, and say where they are."""
        self._poller = zmq.Poller()
        for socket in (self.gate.socket, self.sockets.news, self.sockets.questions, self.sockets.commands):
            self._poller.register(socket, zmq.POLLIN)
        self._publish_endpoint()

    # -- the loop ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until told to go, until the linger time is over, or until another trainer brings its own agent."""
        beat_due = 0.0
        while not self.stopping:
            self.serve_once(_TICK_MS)
            self.cut_revoked()
            self._tail()
            now = time.monotonic()
            if now >= beat_due:
                beat_due = now + _BEAT_S
                self._watch_trainer(now)
                if not self.stopping:  # what it saw of a run that was taken away is no news of the run
                    self._beat()

    def serve_once(self, timeout_ms: int) -> None:
        """Answer what has arrived."""
        ready = dict(self._poller.poll(timeout_ms))
        self.desk.looked(nothing_waits=self.sockets.commands not in ready)
        self.gate.count_failed()
        if self.gate.socket in ready:
            self.gate.answer()
        if self.sockets.news in ready:
            with contextlib.suppress(zmq.Again):  # a subscription: nothing to do, the welcome goes by itself
                said = self.sockets.news.recv_multipart(zmq.NOBLOCK)
                self._refused["malformed"] += len(said) != 1 or said[0][:1] not in (b"\0", b"\1")
        if self.sockets.questions in ready:
            self._serve(QUESTIONS, self.sockets.questions, wire.questions, self._answer)
        if self.sockets.commands in ready:
            self._serve(COMMANDS, self.sockets.commands, wire.orders, self._obey)

    def cut_revoked(self) -> None:
        """Cut everybody off when a key that was let in would not be any more; the others come back by themselves."""
        revoked = self.gate.revoked()
        if not revoked:
            return
        for holder in revoked:
            self.desk.forget(holder.name)  # what is accepted already is the trainer's, and stays
        self.sockets.rebind()
        self._epoch = secrets.token_hex(8)
        self._open_doors()

    def _serve(
        self,
        name: str,
        socket: "zmq.Socket[Any]",
        decoder: "msgspec.msgpack.Decoder[Any]",
        answer: Callable[[Any, Holder], wire.Reply],
    ) -> None:
        frames = socket.recv_multipart(zmq.NOBLOCK, copy=False)
        client, body = frames[0].bytes, frames[-1].bytes if len(frames) == 2 else b""
        try:
            problem, holder = self._turned_away(name, frames)
            if problem is None:
                assert holder is not None
                reply = answer(decoder.decode(body), holder)
            else:
                reply = wire.Reply(wire.token_of(body), problem=problem)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._refused["malformed"] += 1
            reply = wire.Reply(wire.token_of(body), problem=wire.Problem(wire.explained(body, error)))
        except sqlite3.Error as error:
            print(f"a command could not be stored: {error}", file=sys.stderr)
            return  # nothing was accepted; no answer means unknown, and the client asks again with the same id
        with contextlib.suppress(zmq.Again, zmq.ZMQError):  # a client that has gone or does not read loses its reply
            socket.send_multipart([client, wire.pack(reply)], zmq.NOBLOCK)

    def _turned_away(self, name: str, frames: "list[zmq.Frame]") -> tuple[wire.Problem | None, Holder | None]:
        """Why a message is not even read, else whose it is: the key of its connection is looked up every time."""
        holder = self.gate.holder(str(frames[-1].get("User-Id")), name)
        if holder is None:
            self._refused["unauthenticated"] += 1
            return wire.Problem(f"this key may not use {name}, or no longer: it was revoked", Refusal.AUTH), None
        if not self._paces[name].allows(holder.name):
            self._refused["flooding"] += 1
            return wire.Problem(f"too many requests from {holder.name}: wait a moment", Refusal.RATE), None
        if len(frames) != 2 or len(frames[-1]) > wire.MOST_REQUEST_BYTES:
            self._refused["oversize" if len(frames) == 2 else "malformed"] += 1
            return wire.Problem(f"a request is one frame of at most {wire.MOST_REQUEST_BYTES} bytes"), None
        return None, holder

    def _answer(self, question: wire.Question, asker: Holder) -> wire.Reply:
        if question.protocol != PROTOCOL:
            return wire.Reply(question.token, problem=wire.Problem(f"this agent speaks protocol {PROTOCOL}"))
        match question:
            case wire.AskHello():
                return wire.Reply(question.token, hello=self._hello(asker))
            case wire.AskRange(first=first, last=last):
                rows = wire.bounded(self._journal.raw_rows(first - 1, wire.MOST_ROWS, last))
                return wire.Reply(question.token, range=wire.RangeReply(self._journal.journal_id, self._last_seq, rows))
            case wire.AskSegments(after=after):
                return wire.Reply(question.token, segments=segment_transfer.listing(self._journal, after))
            case wire.AskPiece(digest=digest, offset=offset):
                return wire.Reply(question.token, piece=segment_transfer.piece(self._journal, digest, offset))
            case wire.AskStatus(command_id=command_id):
                return wire.Reply(question.token, status=self.desk.status(command_id))

    def _obey(self, order: wire.Order, sender: Holder) -> wire.Reply:
        if order.protocol != PROTOCOL:
            return wire.Reply(order.token, problem=wire.Problem(f"this agent speaks protocol {PROTOCOL}"))
        self._trainer_alive = held(self.run_dir)
        self._tail()
        match order:
            case wire.Send(request=request):
                return wire.Reply(order.token, status=self.desk.send(request, sender.name))
            case wire.Confirm(command_id=command_id):
                return wire.Reply(order.token, status=self.desk.confirm(command_id, sender.name))
            case wire.AskStatus(command_id=command_id):
                return wire.Reply(order.token, status=self.desk.status(command_id))

    def _hello(self, asker: Holder) -> wire.Hello:
        status = status_from(self._journal, self._trainer_alive, True, self._clock())
        return wire.Hello(
            PROTOCOL,
            self._journal.journal_id,
            self._epoch,
            self._last_seq,
            self.desk.state_rev,
            self.run_dir.name,
            asker.role,
            status,
            asker.name,
            self._journal.layout.fields,
            segment_transfer.sealed_through(self._journal),
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
                batch = wire.bounded(rows)
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
            self.sockets.news.send_multipart(frames, zmq.NOBLOCK)

    def _hear(self, record: object) -> None:
        if isinstance(record, CommandChanged):
            self.desk.heard(record)
        elif isinstance(record, RunState):
            ended = record.state in _FINAL
            self.desk.run_ended = f"the run has {record.state}: {record.because}" if ended else None
        else:
            self._lost += getattr(record, "count", 0)

    def refused(self) -> wire.Refused:
        """What was turned away so far."""
        unauthenticated = self._refused["unauthenticated"] + self.gate.denied
        of = self._refused
        return wire.Refused(unauthenticated, of["oversize"], of["malformed"], of["flooding"])

    def _beat(self) -> None:
        refused = self.refused()
        beat = wire.Heartbeat(
            PROTOCOL,
            self._journal.journal_id,
            self._epoch,
            self._last_seq,
            self.desk.state_rev,
            status_from(self._journal, self._trainer_alive, True, self._clock()),
            self._pipe.queued,
            self._lost,
            refused.total,
            refused,
        )
        self._send_news(wire.TOPIC_BEAT, wire.pack(beat))

    # -- the trainer ------------------------------------------------------------------------------------------------

    def _watch_trainer(self, now: float) -> None:
        holder = holder_of(self.run_dir).get("nonce")
        self._trainer_alive = held(self.run_dir)
        if self._child:
            self._pipe.read()
        if holder != self._trainer_nonce and self._trainer_alive:
            self.stopping = True  # another trainer: it starts its own agent
        if self._waits_for_key and self.gate.named():
            self.stopping = True  # the trainer starts the next one, which listens where it was asked to
        if not self._journal.in_place() or self._lock.restored() is False:
            self.stopping = True  # it was removed: there is nothing left to serve, or another agent serves what is new
        elif not says_epoch(self.run_dir, self._epoch):
            with contextlib.suppress(OSError):  # a full disk: tried again
                self._publish_endpoint()  # somebody removed it: nobody would find the way here any more
        if self._trainer_alive:
            self._gone_since = None
        elif self._gone_since is None:
            self._gone_since = now
        elif now - self._gone_since > self._linger_s and self._child:
            self.stopping = True

    # -- start and end ----------------------------------------------------------------------------------------------

    def _publish_endpoint(self) -> None:
        endpoint = Endpoint(
            PROTOCOL,
            **self.sockets.addresses,
            server_key=self._server.public,
            journal_id=self._journal.journal_id,
            epoch=self._epoch,
            pid=os.getpid(),
            started=time.time(),
        )
        write_endpoint(self.run_dir, endpoint)

    def close(self) -> None:
        """Withdraw the endpoint and let go."""
        withdraw_endpoint(self.run_dir, self._epoch)
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


def serve(
    run_dir: Path, *, child: bool = False, linger_s: float = LINGER_S, listen: str | None = None, says: bool = False
) -> None:
    """Serve a run directory until SIGINT or SIGTERM. Raises UserError (RunInUse when an agent already does).

    ``says``: print where it listens.
    """
    agent = Agent(run_dir, child=child, linger_s=linger_s, listen=listen)

    def stop(number: int, frame: FrameType | None) -> None:
        agent.stopping = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        if says:
            print(f"serving {run_dir} at {agent.sockets.listening}", flush=True)
        agent.run()
    finally:
        agent.close()


def lingering(environment: Mapping[str, str]) -> float:
    """How long to stay after the trainer. Raises UserError for what is no number of seconds."""
    said = environment.get("HYBRID_AGENT_LINGER_S", f"{LINGER_S}")
    with contextlib.suppress(ValueError):
        if 0.0 <= float(said) < math.inf:
            return float(said)
    raise UserError(f"HYBRID_AGENT_LINGER_S = {said}: must be a number of seconds, at least 0")


def main() -> int:
    """Entry point of the agent process."""
    parser = argparse.ArgumentParser(prog="trainer_core.telemetry.agent")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--child", action="store_true")
    parser.add_argument("--listen", metavar="HOST[:PORT]")
    options = parser.parse_args()
    try:
        serve(options.run_dir, child=options.child, linger_s=lingering(os.environ), listen=options.listen)
    except (UserError, JournalError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
