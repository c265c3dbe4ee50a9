"""An agent's three sockets: bound behind CURVE, tested against strangers, bound anew. Reads and answers no message."""

import contextlib
import errno
import time
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from trainer_core.spec.errors import UserError
from trainer_core.telemetry import wire
from trainer_core.telemetry.auth import COMMANDS, NEWS, QUESTIONS, Gate, secure_client, secure_server
from trainer_core.telemetry.keys import Key
from trainer_core.telemetry.listening import LAST_PORT, Place, unbindable

NAMES = (NEWS, QUESTIONS, COMMANDS)
"""In the order of their ports."""
MOST_FRAME_BYTES = 4 * wire.MOST_REQUEST_BYTES
"""libzmq cuts a connection that announces a longer frame, before it is read."""
_MOST_UNREAD = 64
"""Replies that wait for one connection: who asks and does not read loses what is beyond, and costs no more memory."""
_SELF_TEST_S, _REBIND_S, _TRIES, _TICK_MS = 10.0, 2.0, 50, 25
_REFUSED, _LET_IN = zmq.Event.HANDSHAKE_FAILED_AUTH, zmq.Event.HANDSHAKE_SUCCEEDED


class Sockets:
    """News, questions and commands of one agent. Raises UserError when they cannot be bound or let strangers in."""

    def __init__(self, context: zmq.Context[Any], gate: Gate, server: Key, viewer: Key, place: Place) -> None:
        self._context, self._gate, self._server, self._viewer = context, gate, server, viewer
        self._place = place
        self._ports: tuple[int, ...] = ()
        self.news: zmq.Socket[Any]
        self.questions: zmq.Socket[Any]
        self.commands: zmq.Socket[Any]
        self._bind_first()
        self.self_test()

    @property
    def addresses(self) -> dict[str, str]:
        """Name -> what a client on this machine connects to."""
        return {name: self._place.reached(port) for name, port in zip(NAMES, self._ports, strict=True)}

    @property
    def listening(self) -> str:
        """For people: where other machines call."""
        return f"{self._place.host.rsplit(':', 1)[0] if self._place.port else self._place.host}:{self._ports[0]}"

    def rebind(self) -> None:
        """Cut every connection and listen on the same ports again. Raises UserError when they cannot be had."""
        self._gate.forget_sockets()
        for name in NAMES:
            self._close(getattr(self, name))
        ends = time.monotonic() + _REBIND_S
        while True:
            try:
                self._bind(self._ports[0])
                break
            except zmq.ZMQError as error:  # libzmq gives a port back a moment after close
                if time.monotonic() > ends:
                    raise unbindable(self._place, self._ports[0], str(error)) from None
                time.sleep(0.01)
        self.self_test()

    # -- binding ----------------------------------------------------------------------------------------------------

    def _bind_first(self) -> None:
        """The ports asked for, or any three in a row."""
        for last in range(_TRIES, -1, -1):
            try:
                return self._bind(self._place.port)
            except zmq.ZMQError as error:
                if self._place.port or error.errno != errno.EADDRINUSE or not last:
                    raise unbindable(self._place, self._place.port, zmq.strerror(error.errno or 0)) from None

    def _bind(self, first: int) -> None:
        """On three ports from ``first`` on; 0: from any that is free, which is held while the next two are tried."""
        bound: list[zmq.Socket[Any]] = []
        try:
            for after, name in enumerate(NAMES):
                bound.append(self._made(name))
                if first:
                    bound[-1].bind(self._place.bound(first + after))
                else:
                    bound[-1].bind(self._place.bound(0).removesuffix("0") + "*")
                    first = _port(bound[-1])
        except zmq.ZMQError:
            for socket in bound:
                socket.close()
            raise
        ports = tuple(range(first, first + len(NAMES)))
        for socket in bound:
            self._gate.watch(socket)
        self.news, self.questions, self.commands = bound
        self._ports = ports

    def _made(self, name: str) -> "zmq.Socket[Any]":
        socket: zmq.Socket[Any] = self._context.socket(zmq.XPUB if name == NEWS else zmq.ROUTER)
        socket.linger = 0
        socket.ipv6 = self._place.ipv6
        socket.maxmsgsize = MOST_FRAME_BYTES
        if name == NEWS:
            socket.setsockopt(zmq.XPUB_WELCOME_MSG, wire.TOPIC_WELCOME)
            socket.sndhwm = 2000
        elif name == QUESTIONS:  # whose replies are large
            socket.sndhwm = _MOST_UNREAD
        secure_server(socket, self._server, name)
        return socket

    def _close(self, socket: "zmq.Socket[Any]") -> None:
        socket.disable_monitor()
        socket.close()

    # -- the self-test ----------------------------------------------------------------------------------------------

    def self_test(self) -> None:
        """A random key must be refused on every socket, and the viewer's on commands: CURVE without ZAP would let them.

        The probes' own monitors say what came of it. Raises UserError when one is let in or nobody refuses it.
        """
        probes = [_Probe(self._context, "a random key", name, Key.new(), self) for name in NAMES]
        probes.append(_Probe(self._context, "the viewer's key", COMMANDS, self._viewer, self))
        ends = time.monotonic() + _SELF_TEST_S
        try:
            while waiting := [probe for probe in probes if not probe.refused()]:
                if self._gate.socket.poll(_TICK_MS):
                    self._gate.answer()
                if time.monotonic() > ends:
                    raise UserError(f"the agent's self-test failed: {waiting[0].what}: not refused; it does not start")
        finally:
            for probe in probes:
                probe.close()
        self._gate.denied -= len(probes)

    def probe(self, socket: "zmq.Socket[Any]", name: str, key: Key) -> None:
        """Connect as a client with ``key`` would."""
        secure_client(socket, self._server.public, key)
        socket.connect(self.addresses[name])


def _port(socket: "zmq.Socket[Any]") -> int:
    """Where it listens. Raises ZMQError, as for a port in use, when two more cannot come after it."""
    port = int(socket.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])
    if port > LAST_PORT:
        raise zmq.ZMQError(errno.EADDRINUSE)
    return port


class _Probe:
    """One client that must not be let in."""

    def __init__(self, context: zmq.Context[Any], who: str, name: str, key: Key, sockets: Sockets) -> None:
        self.what = f"{who} on {name}"
        self._refused = False
        self._socket: zmq.Socket[Any] = context.socket(zmq.SUB if name == NEWS else zmq.DEALER)
        self._socket.linger = 0
        self._socket.ipv6 = True
        self._monitor = self._socket.get_monitor_socket(_REFUSED | _LET_IN)
        sockets.probe(self._socket, name, key)

    def refused(self) -> bool:
        """Whether the handshake was refused. Raises UserError when it was not."""
        while not self._refused and self._monitor.poll(0):
            event = recv_monitor_message(self._monitor, zmq.NOBLOCK)["event"]
            if event == _LET_IN:
                raise UserError(f"the agent's self-test failed: {self.what} was let in; it does not start")
            self._refused = True
        return self._refused

    def close(self) -> None:
        with contextlib.suppress(zmq.ZMQError):
            self._socket.disable_monitor()
        self._monitor.close()
        self._socket.close()
