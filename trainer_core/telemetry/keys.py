"""CURVE keys of a run as files: the run's own, and named ones for other people and machines. Opens no socket.

RUN_DIR/keys/ (0700), every file in it 0600:

    server.key operator.key viewer.key    {public, secret}: the run's own; who may read the directory may use them
    public.json      [{name, role, public, created}]: the named keys that are let in; replaced whole
    NAME.key         {name, role, public, secret, server}: a named key, for its holder to take away
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Literal, TypeVar

import msgspec
import zmq

from trainer_core.spec.errors import RunError, UserError

Role = Literal["viewer", "operator"]
ROLES: tuple[Role, ...] = ("viewer", "operator")
RESERVED = ("server", *ROLES)
"""Names of the run's own keys."""
DIRECTORY, LISTED = "keys", "public.json"
T = TypeVar("T")
_LOCK, _NAME = ".lock", re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")


class KeyFileError(RunError):
    """A key file that cannot be used as it is."""

    exit_code = 2


class Key(msgspec.Struct, frozen=True):
    """A CURVE key pair in Z85."""

    public: str
    secret: str

    @classmethod
    def new(cls) -> "Key":
        """A fresh random pair."""
        public, secret = zmq.curve_keypair()
        return cls(public.decode(), secret.decode())


class HeldKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a key file holds that was made for somebody: the pair, and whom to expect at the other end."""

    name: str
    role: Role
    public: str
    secret: str
    server: str
    """Public key of the run's server: an agent that has not the secret of it is not this run's."""

    @property
    def pair(self) -> Key:
        return Key(self.public, self.secret)


class Listed(msgspec.Struct, frozen=True):
    """A named key that is let in."""

    name: str
    role: Role
    public: str
    created: float
    """Seconds since 1970."""

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits by which two people can compare a key over the telephone."""
        return fingerprint(self.public)


def fingerprint(public: str) -> str:
    """The first 64 bits of the SHA-256 of a public key."""
    return hashlib.sha256(public.encode()).hexdigest()[:16]


# -- the run's own keys -----------------------------------------------------------------------------------------------


def make_keys(run_dir: Path) -> None:
    """Create the run's own keys where there are none yet. Raises KeyFileError when the directory is open to others."""
    directory = Path(run_dir) / DIRECTORY
    directory.mkdir(mode=0o700, exist_ok=True)
    _refuse_loose(directory)
    with _alone(directory):
        for name in RESERVED:
            path = directory / f"{name}.key"
            if not path.exists():
                _replace(path, json.dumps(msgspec.to_builtins(Key.new())))


def read_key(run_dir: Path, name: str) -> Key:
    """One of the run's own key pairs. Raises KeyFileError when it is missing, unreadable, or readable by others."""
    return _read(Path(run_dir) / DIRECTORY / f"{name}.key", Key)


def read_held(path: Path) -> HeldKey:
    """A named key from its file. Raises KeyFileError when it is missing, no such file, or readable by others."""
    return _read(Path(path), HeldKey)


# -- named keys -------------------------------------------------------------------------------------------------------


def create(run_dir: Path, name: str, role: str, out: Path | None = None, now: float | None = None) -> Path:
    """Let a new key in, and write it to ``out`` (default: keys/NAME.key of the run) for its holder; returns that path.

    The run need not exist yet: its directory and its own keys are made. Raises UserError for a name that is taken,
    reserved or no name, another role, a file that exists, or a directory that cannot be used.
    """
    _check_name(name)
    if role not in ROLES:
        raise UserError(f"--role {role}: must be one of {', '.join(ROLES)}")
    run_dir = Path(run_dir)
    if out is not None:
        _check_new(Path(out), run_dir)  # before anything is made
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        make_keys(run_dir)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{run_dir}: is a file; give a run directory, or the name of one to be made") from None
    directory = run_dir / DIRECTORY
    path = Path(out) if out is not None else directory / f"{name}.key"
    with _alone(directory):
        known = listed(run_dir)
        if any(key.name == name for key in known):
            raise UserError(
                f"{name}: {run_dir} already has a key of that name; revoke it first, or choose another name"
            )
        pair = Key.new()
        held = HeldKey(name, role, pair.public, pair.secret, read_key(run_dir, "server").public)
        _write_new(path, json.dumps(msgspec.to_builtins(held)))
        try:
            _publish(directory, [*known, Listed(name, role, pair.public, time.time() if now is None else now)])
        except BaseException:
            path.unlink()
            raise
    return path


def listed(run_dir: Path) -> list[Listed]:
    """The named keys that are let in, oldest first; none where nobody made any. Raises KeyFileError for a bad list."""
    path = Path(run_dir) / DIRECTORY / LISTED
    return _read(path, list[Listed]) if path.exists() else []


def revoke(run_dir: Path, name: str) -> Listed:
    """Let a named key in no more, from now on; its file in the run directory goes as well. Raises UserError."""
    directory = Path(run_dir) / DIRECTORY
    if name in RESERVED:
        raise UserError(
            f"{name}: is the run's own key, for those who may read {directory}; only named keys are revoked "
            f"({_names(listed(run_dir))})"
        )
    if not directory.is_dir():
        make = f"hybrid keys create {quote(str(run_dir))} NAME --role viewer"
        raise UserError(f"{run_dir}: has no keys; make one with: {make}")
    with _alone(directory):
        known = listed(run_dir)
        gone = next((key for key in known if key.name == name), None)
        if gone is None:
            raise UserError(f"{name}: {run_dir} has no key of that name; it has {_names(known)}")
        _publish(directory, [key for key in known if key is not gone])
        file = directory / f"{name}.key"
        file.unlink(missing_ok=True)
    return gone


def _names(known: list[Listed]) -> str:
    return ", ".join(key.name for key in known) or "none"


def _check_name(name: str) -> None:
    if name in RESERVED:
        raise UserError(f"{name}: is the name of a key of the run's own; choose another name")
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r}: a key's name is 1 to 32 letters, digits, - and _, and begins with no - or _")


def _check_new(path: Path, run_dir: Path) -> None:
    """Raise UserError for a file that is there, or whose folder neither is nor will be made with the run's."""
    folder, run = path.absolute().parent, run_dir.absolute()
    if path.exists():
        raise UserError(f"{path}: exists already and is left alone; give another file with --out")
    if not folder.is_dir() and folder not in (run / DIRECTORY, run, *run.parents):
        raise UserError(f"{path}: cannot be written: there is no folder {folder}")


# -- who is let in ----------------------------------------------------------------------------------------------------


class Holder(msgspec.Struct, frozen=True):
    """Whose a known key is. The name is the actor of its commands."""

    name: str
    role: Role


class Keyring:
    """Public key -> holder, as the files say now: read again only when one of them has changed.

    A file that is missing, damaged or open to others lets nobody in.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = Path(run_dir)
        self._paths = [self._run_dir / DIRECTORY / name for name in (*(f"{role}.key" for role in ROLES), LISTED)]
        self._stamp: list[tuple[int, ...]] = []
        self._holders: dict[str, Holder] = {}

    def holder(self, public: str) -> Holder | None:
        """Who holds a public key; None for a stranger."""
        return self.holders().get(public)

    def holders(self) -> dict[str, Holder]:
        """Everybody who is let in now."""
        stamp = [_stamp(path) for path in self._paths]
        if stamp != self._stamp:
            self._holders, self._stamp = self._read(), stamp
        return self._holders

    def _read(self) -> dict[str, Holder]:
        holders: dict[str, Holder] = {}
        with contextlib.suppress(RunError):
            holders = {key.public: Holder(key.name, key.role) for key in listed(self._run_dir)}
        for role in ROLES:
            with contextlib.suppress(RunError):
                holders[read_key(self._run_dir, role).public] = Holder(role, role)
        return holders


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns


# -- files ------------------------------------------------------------------------------------------------------------


def _read(path: Path, kind: type[T]) -> T:
    try:
        _refuse_loose(path)
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise KeyFileError(f"key {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _refuse_loose(path: Path) -> None:
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise KeyFileError(f"{path} has mode {mode:o}: others could read it; chmod it to {mode & ~0o077:o}")


def _publish(directory: Path, known: list[Listed]) -> None:
    _replace(directory / LISTED, json.dumps(msgspec.to_builtins(known), indent=1))


def _replace(path: Path, text: str) -> None:
    """The whole file or the old one, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        _write_new(temporary, text)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _write_new(path: Path, text: str) -> None:
    """A private file that was not there. Raises UserError when it was, or cannot be."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise UserError(f"{path}: exists already and is left alone; give another file with --out") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        path.unlink()
        raise KeyFileError(f"{path}: cannot be written: {error.strerror}") from None


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """One writer of the keys at a time. Raises UserError when the directory cannot be written to."""
    try:
        descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UserError(f"{directory}: cannot be written to: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
