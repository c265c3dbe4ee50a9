"""CURVE keys of a run and who may do what with them. Answers ZAP requests; publishes and accepts nothing itself.

RUN_DIR/keys/ (0700): server.key, operator.key, viewer.key (0600, JSON {public, secret}). The name of the file a public
key came from is the actor; its role says which sockets it may use.
"""

import json
import os
from pathlib import Path

import msgspec
import zmq
from zmq.utils import z85

from trainer_core.spec.errors import RunError

ROLES = ("viewer", "operator")
ZAP_ADDRESS = "inproc://zeromq.zap.01"
_DIRECTORY = "keys"


class Key(msgspec.Struct, frozen=True):
    """A CURVE key pair in Z85."""

    public: str
    secret: str


def make_keys(run_dir: Path) -> None:
    """Create the run's keys where they do not exist yet. Raises RunError when the directory is open to others."""
    directory = Path(run_dir) / _DIRECTORY
    directory.mkdir(mode=0o700, exist_ok=True)
    _refuse_loose(directory, 0o077)
    for name in ("server", *ROLES):
        path = directory / f"{name}.key"
        if not path.exists():
            public, secret = zmq.curve_keypair()
            _write_private(path, json.dumps({"public": public.decode(), "secret": secret.decode()}))


def read_key(run_dir: Path, name: str) -> Key:
    """One key pair. Raises RunError when it is missing, unreadable, or readable by others."""
    path = Path(run_dir) / _DIRECTORY / f"{name}.key"
    try:
        _refuse_loose(path, 0o077)
        return msgspec.json.decode(path.read_bytes(), type=Key)
    except (OSError, msgspec.MsgspecError) as error:
        raise RunError(f"key {path} cannot be read: {error}") from None


def _refuse_loose(path: Path, mask: int) -> None:
    mode = path.stat().st_mode & 0o777
    if mode & mask:
        raise RunError(f"{path} has mode {mode:o}: others could read it; chmod it to {mode & ~mask:o}")


def _write_private(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)


class Gate:
    """The ZAP handler: a key is let in when it is known and its role may use the socket's domain.

    Domains: ``viewer`` (news and questions: both roles) and ``operator`` (commands: operators only). Keys are read at
    every handshake, so adding or removing a file takes effect without a restart.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], run_dir: Path) -> None:
        self._run_dir = run_dir
        self.denied = 0
        """Connections refused: by key, by role, or because they spoke no CURVE at all."""
        self._monitors: list[zmq.Socket[bytes]] = []
        self.socket = context.socket(zmq.REP)
        self.socket.linger = 0
        self.socket.bind(ZAP_ADDRESS)

    def watch(self, socket: "zmq.Socket[bytes]") -> None:
        """Also count who fails before a key is even shown: libzmq turns those away without asking ZAP."""
        failed = zmq.Event.HANDSHAKE_FAILED_NO_DETAIL | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
        self._monitors.append(socket.get_monitor_socket(failed))

    def count_failed(self) -> None:
        """Take in what was turned away since the last call."""
        for monitor in self._monitors:
            while monitor.poll(0):
                monitor.recv_multipart(zmq.NOBLOCK)
                self.denied += 1

    def answer(self) -> None:
        """Answer one waiting ZAP request."""
        version, sequence, domain, _, _, mechanism, *credentials = self.socket.recv_multipart()
        name = ""
        if mechanism == b"CURVE" and credentials:
            name = self._name_of(z85.encode(credentials[0]).decode())
        allowed = name in ROLES and (domain == b"viewer" or name == "operator")
        self.denied += not allowed
        code, text = (b"200", b"OK") if allowed else (b"400", b"unknown key or role")
        self.socket.send_multipart([version, sequence, code, text, name.encode() if allowed else b"", b""])

    def _name_of(self, public: str) -> str:
        for name in ROLES:
            try:
                if read_key(self._run_dir, name).public == public:
                    return name
            except RunError:
                continue
        return ""


def secure_server(socket: "zmq.Socket[bytes]", server: Key, domain: str) -> None:
    """Make a socket about to bind a CURVE server in a ZAP domain."""
    socket.curve_server = True
    socket.curve_secretkey = server.secret.encode()
    socket.curve_publickey = server.public.encode()
    socket.zap_domain = domain.encode()


def secure_client(socket: "zmq.Socket[bytes]", server_public: str, own: Key) -> None:
    """Make a socket about to connect a CURVE client."""
    socket.curve_serverkey = server_public.encode()
    socket.curve_secretkey = own.secret.encode()
    socket.curve_publickey = own.public.encode()
