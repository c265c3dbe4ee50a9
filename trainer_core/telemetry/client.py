"""Questions and commands to a run's agent. What `hybrid send`, the dashboard and scripts use. Draws nothing.

No reply means unknown, never failed: the answer then has ``state`` None, and asking again with the same id is safe.
"""

import itertools
import time
from pathlib import Path
from typing import Any

import msgspec
import zmq
from zmq.utils.monitor import recv_monitor_message

from trainer_core.spec.commands import CommandRequest, CommandState, Refusal, kind_of
from trainer_core.spec.errors import RunError
from trainer_core.spec.records import CommandChanged
from trainer_core.telemetry import wire
from trainer_core.telemetry.auth import COMMANDS, QUESTIONS, secure_client
from trainer_core.telemetry.desk import status_of
from trainer_core.telemetry.doors import Door
from trainer_core.telemetry.journal import JournalError, JournalReader
from trainer_core.telemetry.wire import CommandStatus

_REPLY_S, _ASK_AGAIN_S = 2.0, 0.05
_REFUSED, _LET_IN = zmq.Event.HANDSHAKE_FAILED_AUTH, zmq.Event.HANDSHAKE_SUCCEEDED


class Line:
    """One CURVE DEALER to the agent: a question, its answer. Reconnects when another agent has taken over."""

    def __init__(self, door: Door, socket: str) -> None:
        self._door, self._which = door, socket
        self._context: zmq.Context[Any] = zmq.Context.instance()
        self._socket: zmq.Socket[Any] | None = None
        self._monitor: zmq.Socket[Any] | None = None
        self._let_in = False
        """Whether this socket was ever let in: what it sent then may have arrived."""
        self._epoch = ""
        self._tokens = itertools.count(1)

    def ask(self, message: Any, timeout_s: float = _REPLY_S) -> wire.Reply | None:
        """The reply, or None when none came in time (or no agent is there).

        Answered here: a request that no agent would read (a frame over its limit would cost the connection, unheard),
        and a key that is not let in, so that nothing was sent.
        """
        token = next(self._tokens)
        request = wire.pack(msgspec.structs.replace(message, token=token))
        if len(request) > wire.MOST_REQUEST_BYTES:
            limit = f"a request is at most {wire.MOST_REQUEST_BYTES} bytes; this one has {len(request)}"
            return wire.Reply(token, problem=wire.Problem(limit))
        socket = self._connected()
        if socket is None:
            return None
        try:
            socket.send(request, zmq.NOBLOCK)
            if (reply := self._answer(socket, token, time.monotonic() + timeout_s)) is not None:
                return reply
        except (zmq.ZMQError, msgspec.MsgspecError):
            pass
        self.close()
        return None

    def _answer(self, socket: "zmq.Socket[Any]", token: int, deadline: float) -> wire.Reply | None:
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            ready = dict(poller.poll(int(1000 * left) + 1))
            if socket in ready:
                reply = wire.replies.decode(socket.recv(zmq.NOBLOCK))
                if reply.token == token:
                    return reply
            if self._monitor in ready and self._refused():
                in_before = self._let_in
                self.close()
                if in_before:
                    return None  # cut off after it was sent: nobody knows whether it arrived
                what = f"{self._door.where}: the key is not let in to {self._which}: unknown, revoked, or a viewer's"
                return wire.Reply(token, problem=wire.Problem(what, Refusal.AUTH))
        return None

    def _refused(self) -> bool:
        """Take in what the handshakes came to; whether one was refused."""
        while self._monitor is not None and self._monitor.poll(0):
            if recv_monitor_message(self._monitor, zmq.NOBLOCK)["event"] == _LET_IN:
                self._let_in = True
            else:
                return True
        return False

    def _connected(self) -> "zmq.Socket[Any] | None":
        endpoint = self._door.endpoint()
        if endpoint is None:
            self.close()
            return None
        if self._socket is None or endpoint.epoch != self._epoch or self._refused():
            self.close()
            address = getattr(endpoint, self._which)
            socket = self._context.socket(zmq.DEALER)
            socket.linger = 0
            socket.ipv6 = "[" in address
            try:
                secure_client(socket, endpoint.server_key, self._door.key())
            except RunError:
                socket.close()
                raise
            self._monitor = socket.get_monitor_socket(_REFUSED | _LET_IN)
            socket.connect(address)
            self._socket, self._epoch = socket, endpoint.epoch
        return self._socket

    def close(self) -> None:
        if self._socket is not None:
            self._socket.disable_monitor()
            self._socket.close()
        if self._monitor is not None:
            self._monitor.close()
        self._socket = self._monitor = None
        self._let_in = False


class Client:
    """Talks to the agent of one run, if there is one. Not for sharing between threads.

    ``where``: a run directory, or HOST:PORT of an agent elsewhere together with ``key_file`` (``hybrid keys create``).
    A key file's role counts, not ``role``. Raises UserError for an address, RunError for a key file that is none.
    """

    def __init__(self, where: str | Path, role: str = "operator", key_file: str | Path | None = None) -> None:
        door = Door(where, role, key_file)
        self._run_dir, self._role = door.run_dir, door.role
        self._questions = Line(door, QUESTIONS)
        self._orders = Line(door, COMMANDS if self._role == "operator" else QUESTIONS)

    def hello(self) -> wire.Hello | None:
        """Who answers; None when nobody does."""
        reply = self._questions.ask(wire.AskHello())
        return reply.hello if reply else None

    def reach(self, timeout_s: float) -> bool:
        """Wait until an agent answers, up to ``timeout_s`` seconds; whether one did. Commands nothing.

        An answer that refuses the key is one: what is sent next is refused with the reason.
        """
        deadline = time.monotonic() + timeout_s
        while self._questions.ask(wire.AskHello(), max(_ASK_AGAIN_S, min(_REPLY_S, timeout_s))) is None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_ASK_AGAIN_S)
        return True

    def send(self, request: CommandRequest, confirm: bool = False) -> CommandStatus:
        """Give a command; ``confirm`` also sends the second message that dangerous ones need."""
        kind = kind_of(request.command)
        if self._role != "operator":  # spares the question: the commands socket lets no other key in
            detail = f"the {self._role}'s key may watch, not give commands"
            return CommandStatus(request.command_id, kind, CommandState.REJECTED, refusal=Refusal.AUTH, detail=detail)
        answer = self._status(self._told(wire.Send(request=request)), request.command_id, kind)
        if confirm and answer.state is CommandState.RECEIVED:
            answer = self._status(self._told(wire.Confirm(command_id=request.command_id)), request.command_id, kind)
        return answer

    def _told(self, order: wire.Order) -> wire.Reply | None:
        """Ask, and once more when no answer came: the same id twice is one command."""
        return self._orders.ask(order) or self._orders.ask(order)

    def confirm(self, command_id: str) -> CommandStatus:
        """Send the second message of a dangerous command on its own."""
        return self._status(self._told(wire.Confirm(command_id=command_id)), command_id)

    def status(self, command_id: str) -> CommandStatus:
        """Where a command stands: from the agent, or from the journal when none answers."""
        reply = self._questions.ask(wire.AskStatus(command_id=command_id))
        if reply is not None and reply.problem is not None:  # it is the question that was refused, not the command
            answer = CommandStatus(command_id, detail=reply.problem.error)
        else:
            answer = self._status(reply, command_id)
        return answer if answer.state is not None else self._from_journal(command_id, answer)

    def wait(self, command_id: str, timeout_s: float) -> CommandStatus:
        """Ask until the command has come to its end, or ``timeout_s`` seconds have passed."""
        deadline = time.monotonic() + timeout_s
        while True:
            answer = self.status(command_id)
            if (answer.state is not None and answer.state.final) or time.monotonic() >= deadline:
                return answer
            time.sleep(_ASK_AGAIN_S)

    def _status(self, reply: wire.Reply | None, command_id: str, kind: str = "") -> CommandStatus:
        if reply is None:
            return CommandStatus(command_id, kind, detail="no answer: whether it was taken is unknown")
        if reply.problem is not None:
            refusal = reply.problem.refusal or Refusal.SCHEMA
            return CommandStatus(command_id, kind, CommandState.REJECTED, refusal=refusal, detail=reply.problem.error)
        return reply.status or CommandStatus(command_id, kind, detail="an answer without a status")

    def _from_journal(self, command_id: str, otherwise: CommandStatus) -> CommandStatus:
        if self._run_dir is None:
            return otherwise
        try:
            reader = JournalReader(self._run_dir)
        except JournalError:
            return otherwise
        try:
            for row in reversed(reader.events("command")):
                if isinstance(row.record, CommandChanged) and row.record.command_id == command_id:
                    return status_of(row.record)
            return otherwise
        finally:
            reader.close()

    def close(self) -> None:
        self._questions.close()
        self._orders.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
