"""Who is let in to which socket: the answers to ZAP, and CURVE on both ends. Publishes and accepts nothing itself.

ZAP asks only at the handshake. The agent therefore asks the keyring again at every message (``Gate.holder``), and cuts
a connection whose key is no longer known.
"""

from pathlib import Path

import zmq
from zmq.utils import z85

from trainer_core.telemetry.keys import ROLES, Holder, Key, KeyFileError, Keyring, make_keys, read_key

ZAP_ADDRESS = "inproc://zeromq.zap.01"
NEWS, QUESTIONS, COMMANDS = "news", "questions", "commands"
"""The sockets, and their ZAP domains."""


def may_use(role: str, socket: str) -> bool:
    """News and questions are for both roles, commands for operators only."""
    return role == "operator" or (role == "viewer" and socket != COMMANDS)


class Gate:
    """The ZAP handler: a key is let in when it is known and its role may use the socket.

    The public key becomes the connection's User-Id, which no peer can set for itself.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], run_dir: Path) -> None:
        self._keyring = Keyring(run_dir)
        self.denied = 0
        """Connections refused: by key, by role, or because they spoke no CURVE at all."""
        self._admitted: dict[str, Holder] = {}
        self._monitors: list[zmq.Socket[bytes]] = []
        self.socket = context.socket(zmq.REP)
        self.socket.linger = 0
        self.socket.bind(ZAP_ADDRESS)

    def watch(self, socket: "zmq.Socket[bytes]") -> None:
        """Also count who fails before a key is even shown: libzmq turns those away without asking ZAP."""
        failed = zmq.Event.HANDSHAKE_FAILED_NO_DETAIL | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
        self._monitors.append(socket.get_monitor_socket(failed))

    def forget_sockets(self) -> None:
        """The sockets are about to be closed: nobody is connected any more."""
        self.count_failed()
        for monitor in self._monitors:
            monitor.close()
        self._monitors.clear()

    def count_failed(self) -> None:
        """Take in what was turned away since the last call."""
        for monitor in self._monitors:
            while monitor.poll(0):
                monitor.recv_multipart(zmq.NOBLOCK)
                self.denied += 1

    def answer(self) -> None:
        """Answer one waiting ZAP request."""
        version, sequence, domain, _, _, mechanism, *credentials = self.socket.recv_multipart()
        public = z85.encode(credentials[0]).decode() if mechanism == b"CURVE" and credentials else ""
        holder = self._keyring.holder(public)
        if holder is None or not may_use(holder.role, domain.decode(errors="replace")):
            self.denied += 1
            self.socket.send_multipart([version, sequence, b"400", b"unknown key or role", b"", b""])
            return
        self._admitted[public] = holder
        self.socket.send_multipart([version, sequence, b"200", b"OK", public.encode(), b""])

    def holder(self, public: str, socket: str) -> Holder | None:
        """Whose message it is that came over a connection with this User-Id; None when the key may no longer."""
        holder = self._keyring.holder(public)
        return holder if holder is not None and may_use(holder.role, socket) else None

    def named(self) -> bool:
        """Whether anybody but the run's own keys is let in."""
        return any(holder.name not in ROLES for holder in self._keyring.holders().values())

    def revoked(self) -> list[Holder]:
        """Who was let in before and would not be any more; told once."""
        known = self._keyring.holders()
        gone = [public for public, holder in self._admitted.items() if known.get(public) != holder]
        return [self._admitted.pop(public) for public in gone]


def secure_server(socket: "zmq.Socket[bytes]", server: Key, domain: str) -> None:
    """Make a socket about to bind a CURVE server in a ZAP domain."""
    socket.curve_server = True
    socket.curve_secretkey = server.secret.encode()
    socket.curve_publickey = server.public.encode()
    socket.zap_domain = domain.encode()


def secure_client(socket: "zmq.Socket[bytes]", server_public: str, own: Key) -> None:
    """Make a socket about to connect a CURVE client. Raises KeyFileError for text that is no key."""
    try:
        socket.curve_serverkey = server_public.encode()
        socket.curve_secretkey = own.secret.encode()
        socket.curve_publickey = own.public.encode()
    except (zmq.ZMQError, ValueError) as error:
        raise KeyFileError(f"a key in the key file is not a CURVE key: {error}") from None


__all__ = ["ROLES", "Gate", "Key", "make_keys", "may_use", "read_key", "secure_client", "secure_server"]
