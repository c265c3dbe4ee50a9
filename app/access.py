"""Who may look and who may steer: codes, sessions and roles. Knows no web framework, and no run.

Looking is free where nobody has to log in. Steering takes the operator code that is printed at start, a one-time link,
or a login whose e-mail address the access file calls an operator. All of it lives in memory: a restart ends it.
"""

import hashlib
import hmac
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

import msgspec

from trainer_core.spec.errors import UserError

LETTERS = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
"""Of operator codes: nothing that reads like something else."""
GROUPS, GROUP = 3, 4
QUOTES = '“”„"'
"""Left out of typed names."""
SESSION_S = 12 * 3600.0
"""A steering right ends after so long."""
MOST_WRONG, WRONG_WINDOW_S = 5, 60.0
"""Wrong codes taken within so many seconds; then everybody waits."""
MOST_LINKS, MOST_SESSIONS, MOST_NAME = 5, 1000, 60

READ_ONLY = "This dashboard was started read-only. To steer, start it again without --read-only."
LOCKED = (
    "You are looking only. To steer, type the operator code that hybrid dashboard (or hybrid demo) printed in its "
    "terminal, or open the one-time link beside it."
)
NOT_SERVED = "Nothing can be steered here: this page is not served by hybrid dashboard."
USED = "This link has been used or was never valid: each works once. The terminal of hybrid dashboard shows a new one."


class Role(StrEnum):
    """What somebody may do."""

    NOBODY = "nobody"
    VIEWER = "viewer"
    OPERATOR = "operator"


@dataclass(frozen=True)
class Right:
    """What one browser may do, and why not more."""

    role: Role
    who: str = ""
    """On whose behalf commands go into the record, and how that is known: logged in, or a name as typed."""
    why: str = ""
    """The sentence shown where something is not allowed."""
    session: bool = False
    """Whether it comes of a code or link, and so can be given back."""

    @property
    def steers(self) -> bool:
        """Whether commands are sent."""
        return self.role is Role.OPERATOR

    @property
    def looks(self) -> bool:
        """Whether anything is shown."""
        return self.role is not Role.NOBODY


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The access file: who may do what after a login. With it, looking needs a login, too."""

    operators: tuple[str, ...] = ()
    """E-mail addresses, or ``*@example.org`` for everybody of a domain."""
    viewers: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    """Host names under which a proxy forwards to this server, beside localhost."""


@dataclass(frozen=True)
class Login:
    """Somebody whom an identity provider has vouched for."""

    email: str
    verified: bool = True


def read_policy(path: Path) -> Policy:
    """The access file. Raises UserError naming file, key and what is wrong."""
    try:
        policy = msgspec.toml.decode(path.read_bytes(), type=Policy)
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        raise UserError(f"access file {path}: {error}") from None
    for entry in (*policy.operators, *policy.viewers):
        if entry.count("@") != 1 or entry.startswith("@") or entry.endswith("@") or "*" in entry.removeprefix("*@"):
            raise UserError(f"access file {path}: {entry!r}: must be an e-mail address or *@domain")
    return policy


def role_of(login: Login | None, policy: Policy) -> Role:
    """The role of a login: of the most specific entry, an address before a domain; operator before viewer."""
    if login is None or not login.verified or login.email.count("@") != 1:
        return Role.NOBODY
    address = login.email.casefold()
    domain = "*@" + address.partition("@")[2]
    for wanted in (address, domain):
        for entries, role in ((policy.operators, Role.OPERATOR), (policy.viewers, Role.VIEWER)):
            if wanted in (entry.casefold() for entry in entries):
                return role
    return Role.NOBODY


@dataclass(frozen=True)
class _Session:
    """A right that a code or link has opened."""

    began: float
    name: str
    """As it was typed; empty: none was."""
    mark: str
    """Tells the sessions of one dashboard apart in the record, also those under one name. No secret."""

    @property
    def who(self) -> str:
        """In quotation marks, which a typed name cannot contain: it cannot look like a login."""
        return f"“{self.name}” (name as typed, session {self.mark})" if self.name else f"session {self.mark}"


@dataclass(frozen=True)
class Opened:
    """The answer to a code: a session, or the sentence why not."""

    session: str | None
    said: str = ""


class Gate:
    """Codes in, sessions out. For all threads."""

    def __init__(
        self,
        cookie: str = "hybrid_session",
        read_only: bool = False,
        policy: Policy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``cookie``: the name of the cookie that carries a session; ``clock``: seconds."""
        self.cookie, self.read_only, self.policy = cookie, read_only, policy
        self.code = "" if read_only else new_code()
        self._clock = clock
        self._lock = threading.Lock()
        self._links: deque[bytes] = deque(maxlen=MOST_LINKS)
        self._sessions: dict[bytes, _Session] = {}
        self._wrong: deque[float] = deque(maxlen=MOST_WRONG)

    def link(self) -> str:
        """A new one-time key for ``?code=``."""
        key = secrets.token_urlsafe(24)
        with self._lock:
            self._links.append(_digest(key))
        return key

    def open_link(self, key: str) -> Opened:
        """A session for a one-time key, which is then used up."""
        if self.read_only:
            return Opened(None, READ_ONLY)
        with self._lock:
            found = [held for held in self._links if hmac.compare_digest(held, _digest(key))]
            if not found:
                return Opened(None, USED)
            self._links.remove(found[0])
            return self._opened("")

    def unlock(self, code: str, who: str = "") -> Opened:
        """A session for the operator code, as people type it."""
        if self.read_only:
            return Opened(None, READ_ONLY)
        with self._lock:
            wait = self._wait_s()
            if wait > 0:
                return Opened(None, f"Too many wrong codes: wait {wait:.0f} s and try again.")
            if not hmac.compare_digest(_digest(_plain(code)), _digest(_plain(self.code))):
                self._wrong.append(self._clock())
                return Opened(None, "That is not the operator code. It is in the terminal that runs hybrid dashboard.")
            return self._opened(who)

    def lock(self, session: str) -> None:
        """End a session; nothing happens when there is none."""
        with self._lock:
            self._sessions.pop(_digest(session), None)

    def right(self, session: str | None, login: Login | None = None) -> Right:
        """What the holder of a session cookie and a login may do now."""
        held = self._held(session)
        known = login is not None and self.policy is not None and login.verified
        named = f"{login.email} (logged in)" if login is not None and known else ""
        if held is not None:
            return Right(Role.OPERATOR, f"{named}, session {held.mark}" if named else held.who, session=True)
        if self.policy is None:
            return Right(Role.VIEWER, why=READ_ONLY if self.read_only else LOCKED)
        role = role_of(login, self.policy)
        if login is None or role is Role.NOBODY:
            return Right(role, why=f"{login.email} has no role here." if login else "Log in to look.")
        if role is Role.VIEWER:
            return Right(role, named, f"{login.email} may look, not steer. {LOCKED}")
        return Right(Role.VIEWER, named, READ_ONLY) if self.read_only else Right(role, named)

    def _held(self, session: str | None) -> _Session | None:
        if not session:
            return None
        with self._lock:
            held = self._sessions.get(_digest(session))
            return held if held is not None and self._clock() - held.began < SESSION_S else None

    def _opened(self, who: str) -> Opened:
        now = self._clock()
        self._sessions = {key: held for key, held in self._sessions.items() if now - held.began < SESSION_S}
        while len(self._sessions) >= MOST_SESSIONS:
            self._sessions.pop(next(iter(self._sessions)))
        session = secrets.token_urlsafe(32)
        seen = "".join(letter if letter.isprintable() and letter not in QUOTES else " " for letter in who)
        name = " ".join(seen.split())[:MOST_NAME]
        self._sessions[_digest(session)] = _Session(now, name, _letters())
        return Opened(session)

    def _wait_s(self) -> float:
        if len(self._wrong) < MOST_WRONG:
            return 0.0
        return self._wrong[0] + WRONG_WINDOW_S - self._clock()


def new_code() -> str:
    """An operator code such as ``K7QM-2XRT-9HWC``: 59 bits, for people to type."""
    return "-".join(_letters() for _ in range(GROUPS))


def _letters() -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(GROUP))


def _plain(code: str) -> str:
    """As it was meant: without spaces and dashes, in capitals."""
    return "".join(letter for letter in code.upper() if letter.isalnum())


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


@cache
def _installed() -> list[Gate]:
    return []


def install(gate: Gate | None) -> None:
    """Make ``gate`` this process's own, found by pages and routes alike; None: there is none any more."""
    _installed()[:] = [gate] if gate is not None else []


def gate() -> Gate | None:
    """The gate of this process; None: nobody has served anything, and nobody may steer."""
    held = _installed()
    return held[0] if held else None
