"""Questions and commands to a run's agent. What `hybrid send`, the dashboard and scripts use. Draws nothing.

No reply means unknown, never failed: the answer then has ``state`` None, and asking again with the same id is safe.
"""

import itertools
import time
from pathlib import Path
from typing import Any

import msgspec
import zmq

from trainer_core.spec.commands import CommandRequest, CommandState, Refusal, kind_of
from trainer_core.spec.records import CommandChanged
from trainer_core.telemetry import wire
from trainer_core.telemetry.auth import read_key, secure_client
from trainer_core.telemetry.desk import status_of
from trainer_core.telemetry.endpoint import read_endpoint
from trainer_core.telemetry.journal import JournalError, JournalReader
from trainer_core.telemetry.wire import CommandStatus

_REPLY_S, _ASK_AGAIN_S = 2.0, 0.05


class Line:
    """One CURVE DEALER to the agent: a question, its answer. Reconnects when another agent has taken over."""

    def __init__(self, run_dir: Path, role: str, socket: str) -> None:
        self._run_dir, self._role, self._which = Path(run_dir), role, socket
        self._context: zmq.Context[Any] = zmq.Context.instance()
        self._socket: zmq.Socket[Any] | None = None
        self._epoch = ""
        self._tokens = itertools.count(1)

    def ask(self, message: Any, timeout_s: float = _REPLY_S) -> wire.Reply | None:
        """The reply, or None when none came in time (or no agent is there).

        A request that no agent would read is answered here: a frame over its limit would cost the connection, unheard.
        """
        token = next(self._tokens)
        request = wire.pack(msgspec.structs.replace(message, token=token))
        if len(request) > wire.MOST_REQUEST_BYTES:
            limit = f"a request is at most {wire.MOST_REQUEST_BYTES} bytes; this one has {len(request)}"
            return wire.Reply(token, problem=wire.Problem(limit))
        socket = self._connected()
        if socket is None:
            return None
        deadline = time.monotonic() + timeout_s
        try:
            socket.send(request, zmq.NOBLOCK)
            while (left := deadline - time.monotonic()) > 0:
                if not socket.poll(int(1000 * left) + 1):
                    break
                reply = wire.replies.decode(socket.recv(zmq.NOBLOCK))
                if reply.token == token:
                    return reply
        except (zmq.ZMQError, msgspec.MsgspecError):
            pass
        self.close()
        return None

    def _connected(self) -> "zmq.Socket[Any] | None":
        endpoint = read_endpoint(self._run_dir)
        if endpoint is None:
            self.close()
            return None
        if self._socket is None or endpoint.epoch != self._epoch:
            self.close()
            socket = self._context.socket(zmq.DEALER)
            socket.linger = 0
            secure_client(socket, endpoint.server_key, read_key(self._run_dir, self._role))
            socket.connect(getattr(endpoint, self._which))
            self._socket, self._epoch = socket, endpoint.epoch
        return self._socket

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Client:
    """Talks to the agent of one run, if there is one. Not for sharing between threads."""

    def __init__(self, run_dir: Path, role: str = "operator") -> None:
        self._run_dir, self._role = Path(run_dir), role
        self._questions = Line(self._run_dir, role, "questions")
        self._orders = Line(self._run_dir, role, "commands" if role == "operator" else "questions")

    def hello(self) -> wire.Hello | None:
        """Who answers; None when nobody does."""
        reply = self._questions.ask(wire.AskHello())
        return reply.hello if reply else None

    def send(self, request: CommandRequest, confirm: bool = False) -> CommandStatus:
        """Give a command; ``confirm`` also sends the second message that dangerous ones need."""
        kind = kind_of(request.command)
        if self._role != "operator":  # spares the question: the commands socket lets no other key in
            detail = f"the {self._role}'s key may watch, not give commands"
            return CommandStatus(request.command_id, kind, CommandState.REJECTED, refusal=Refusal.AUTH, detail=detail)
        answer = self._status(self._orders.ask(wire.Send(request=request)), request.command_id, kind)
        if confirm and answer.state is CommandState.RECEIVED:
            answer = self._status(
                self._orders.ask(wire.Confirm(command_id=request.command_id)), request.command_id, kind
            )
        return answer

    def confirm(self, command_id: str) -> CommandStatus:
        """Send the second message of a dangerous command on its own."""
        return self._status(self._orders.ask(wire.Confirm(command_id=command_id)), command_id)

    def status(self, command_id: str) -> CommandStatus:
        """Where a command stands: from the agent, or from the journal when none answers."""
        answer = self._status(self._questions.ask(wire.AskStatus(command_id=command_id)), command_id)
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
            return CommandStatus(
                command_id, kind, CommandState.REJECTED, refusal=Refusal.SCHEMA, detail=reply.problem.error
            )
        return reply.status or CommandStatus(command_id, kind, detail="an answer without a status")

    def _from_journal(self, command_id: str, otherwise: CommandStatus) -> CommandStatus:
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
