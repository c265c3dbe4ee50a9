"""Where an agent listens and where a client calls: HOST:PORT as text, checked. Opens no socket for good; knows no key.

Three ports in a row: PORT news, PORT + 1 questions, PORT + 2 commands.
"""

import ipaddress
import re
import socket
from pathlib import Path
from shlex import quote

import msgspec

from trainer_core.spec.errors import UserError
from trainer_core.telemetry.keys import listed
from trainer_core.telemetry.rundir import AGENT_LOCK, held

PORTS = 3
"""How many ports an agent has."""
LAST_PORT = 65535 - (PORTS - 1)
_WRITTEN = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:/\s]+)(?::(?P<port>[0-9]{1,5}))?")
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class NoNamedKey(UserError):
    """Others could reach the run, and nobody among them would be let in."""


class Place(msgspec.Struct, frozen=True):
    """One machine's address and the first of three ports; 0: any three in a row that are free."""

    host: str
    """As it was written."""
    address: str
    """The IP address it stands for."""
    port: int = 0

    @property
    def remote(self) -> bool:
        """Whether other machines can reach it."""
        return not ipaddress.ip_address(self.address).is_loopback

    @property
    def ipv6(self) -> bool:
        return ":" in self.address

    def bound(self, port: int) -> str:
        """What to bind."""
        return _tcp(self.address, port)

    def reached(self, port: int) -> str:
        """What a client on the same machine connects to."""
        return _tcp(_ANY.get(self.address, self.address), port)


LOOPBACK = Place("127.0.0.1", "127.0.0.1")


def place(text: str, flag: str, port_needed: bool = False) -> Place:
    """``HOST``, ``HOST:PORT`` or ``[IPv6]:PORT``. Raises UserError, naming ``flag``, for anything else."""
    written = _WRITTEN.fullmatch(text)
    if written is None or (port_needed and written["port"] is None):
        form = "HOST:PORT" if port_needed else "HOST or HOST:PORT"
        raise UserError(f"{flag} {text}: write {form}, for example 192.0.2.7:7700 ([2001:db8::7]:7700 for IPv6)")
    port = int(written["port"] or 0)
    if port > LAST_PORT or (port_needed and port == 0):
        least = 1 if port_needed else 0
        raise UserError(f"{flag} {text}: the port must be {least} to {LAST_PORT}; it and the next two are used")
    return Place(text, _resolved(written["host"].strip("[]"), f"{flag} {text}"), port)


def _resolved(host: str, what: str) -> str:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UserError(f"{what}: no machine is known by that name ({getattr(error, 'strerror', error)})") from None
    return str(sorted(found, key=lambda one: one[0] != socket.AF_INET)[0][4][0])


def permitted(run_dir: Path, listen: str | None) -> Place:
    """Where an agent of ``run_dir`` may listen. Raises NoNamedKey when others could reach it and there is no key."""
    if listen is None:
        return LOOPBACK
    wanted = place(listen, "--listen")
    if wanted.remote and not listed(run_dir):
        raise NoNamedKey(
            f"--listen {listen}: other machines could reach this run, and it has no named key: "
            f"make one first with: hybrid keys create {quote(str(run_dir))} NAME --role viewer"
        )
    return wanted


def permitted_meanwhile(run_dir: Path, listen: str | None, child: bool) -> tuple[Place, bool]:
    """As ``permitted``, and whether it is only for now: an agent whose run goes on after its last named key was revoked
    (``child``) listens on this machine alone until there is another key.
    """
    try:
        return permitted(run_dir, listen), False
    except NoNamedKey:
        if not child:
            raise
        return LOOPBACK, True


def check(run_dir: Path, listen: str | None) -> None:
    """Raise UserError for what the run's agent could not do later: asked before training begins.

    No key was made, the address is not this machine's, a port is taken (unless by an agent of this run, which will
    make way).
    """
    wanted = permitted(run_dir, listen)
    if listen is None or held(run_dir, AGENT_LOCK):
        return
    for port in [wanted.port + i for i in range(PORTS)] if wanted.port else [0]:
        with socket.socket(socket.AF_INET6 if wanted.ipv6 else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((wanted.address, port))
            except OSError as error:
                raise unbindable(wanted, port, error.strerror or str(error)) from None


def unbindable(wanted: Place, port: int, why: str) -> UserError:
    """The sentence for an address that cannot be listened on."""
    at = f"port {port} of {wanted.host.rsplit(':', 1)[0] if wanted.port else wanted.host}" if port else wanted.host
    return UserError(f"--listen {wanted.host}: {at} cannot be listened on: {why.lower()}; choose another")


def _tcp(address: str, port: int) -> str:
    return f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"
