"""What travels between agent and clients: frames [topic][header][body], requests and replies. Opens no socket.

Everything is MessagePack by msgspec, typed on both sides; nothing is ever unpickled. docs/protocol.md is the reference.
"""

from typing import Annotated

import msgspec

from trainer_core.spec.checks import why_not
from trainer_core.spec.commands import CommandRequest, CommandState, Refusal
from trainer_core.spec.phases import Phase
from trainer_core.telemetry.codec import PROTOCOL, RawRow
from trainer_core.telemetry.rundir import RunStatus

TOPIC_ROWS, TOPIC_BEAT, TOPIC_WELCOME = b"rows", b"beat", b"welcome"
MOST_ROWS, MOST_BYTES = 2000, 1 << 20
"""Bounds of one reply and of one news message."""
MOST_PIECE_BYTES = 512 * 1024
"""How much of a sealed segment one reply holds."""
MOST_SEGMENTS = 1000
"""How many segments one reply lists."""
MOST_REQUEST_BYTES = 64 * 1024
"""A larger request is dropped and counted."""


class Header(msgspec.Struct, frozen=True):
    """Second frame of every news message and of a reply with rows."""

    protocol: int
    journal_id: str
    epoch: str
    """One agent process."""
    first_seq: int
    last_seq: int
    n: int


class Refused(msgspec.Struct, frozen=True):
    """What an agent turned away so far, without any other effect."""

    unauthenticated: int = 0
    """Connections without a known key, or with a viewer's for commands; messages over a key that was revoked."""
    oversize: int = 0
    """Requests of more than MOST_REQUEST_BYTES. Frames over four times that end their connection and are not seen."""
    malformed: int = 0
    flooding: int = 0
    """Requests beyond a key's pace."""

    @property
    def total(self) -> int:
        return self.unauthenticated + self.oversize + self.malformed + self.flooding


class Heartbeat(msgspec.Struct, frozen=True):
    """Once a second. Without ``last_seq`` a reader could not know that it misses the end."""

    protocol: int
    journal_id: str
    epoch: str
    last_seq: int
    state_rev: int
    status: RunStatus
    queued: int | None = None
    """Records the trainer has not committed yet; None when it does not say."""
    lost: int = 0
    """Step records dropped because the disk could not keep up."""
    refused_frames: int = 0
    """All of ``refused`` together."""
    refused: Refused = Refused()


class Hello(msgspec.Struct, frozen=True):
    """Answer to AskHello."""

    protocol: int
    journal_id: str
    epoch: str
    last_seq: int
    state_rev: int
    run: str
    role: str
    """Of the asker's key."""
    status: RunStatus
    actor: str = ""
    """Name of the asker's key."""
    step_fields: tuple[str, ...] = ()
    """Scalar fields of this journal's step rows in their order; empty from an agent that does not say."""
    sealed_through: int | None = None
    """The last row that is in a sealed segment, 0 when none is; None from an agent that hands out no segments."""


class CommandStatus(msgspec.Struct, frozen=True):
    """Where a command stands. ``state`` None means unknown: never read it as failed; ask again with the same id."""

    command_id: str
    kind: str = ""
    state: CommandState | None = None
    step: int | None = None
    phase: Phase | None = None
    before: str | None = None
    after: str | None = None
    refusal: Refusal | None = None
    detail: str = ""
    actor: str = ""
    state_rev: int | None = None


class RangeReply(msgspec.Struct, frozen=True):
    """Rows ``first..`` as many as fit; ``last_seq`` is the journal's newest."""

    journal_id: str
    last_seq: int
    rows: list[RawRow]


class SealedFile(msgspec.Struct, frozen=True):
    """One sealed segment: rows ``first`` to ``last``, both included."""

    first: int
    last: int
    bytes: int
    digest: str
    """BLAKE2b (16 bytes, hex) of the file, as in its name."""


class SegmentsReply(msgspec.Struct, frozen=True):
    """Segments with rows after the one that was named, oldest first, as many as fit."""

    journal_id: str
    segments: list[SealedFile]


class PieceReply(msgspec.Struct, frozen=True):
    """Bytes of a segment from ``offset`` on; None when the journal has no such segment (any more)."""

    digest: str
    offset: int
    content: bytes | None


class _Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="ask"):
    protocol: int = PROTOCOL
    token: int = 0
    """Echoed in the reply, so that a late reply is not taken for another's."""


class AskHello(_Question, frozen=True, tag="hello"):
    """Who is there?"""


class AskRange(_Question, frozen=True, tag="range", kw_only=True):
    """Rows from ``first`` to ``last``, both included."""

    first: Annotated[int, msgspec.Meta(ge=1)]
    last: Annotated[int, msgspec.Meta(ge=1)]


class AskSegments(_Question, frozen=True, tag="segments", kw_only=True):
    """Which sealed segments hold rows after ``after``?"""

    after: Annotated[int, msgspec.Meta(ge=0)]


class AskPiece(_Question, frozen=True, tag="piece", kw_only=True):
    """Bytes of the segment with this digest, from ``offset`` on. A digest names no path: the agent looks it up."""

    digest: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    offset: Annotated[int, msgspec.Meta(ge=0, le=2**40)]


class AskStatus(_Question, frozen=True, tag="status", kw_only=True):
    """Where does a command stand?"""

    command_id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


Question = AskHello | AskRange | AskSegments | AskPiece | AskStatus


class Send(_Question, frozen=True, tag="send", kw_only=True):
    """A command. A dangerous one waits for its Confirm."""

    request: CommandRequest


class Confirm(_Question, frozen=True, tag="confirm", kw_only=True):
    """The second message of a dangerous command."""

    command_id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


Order = Send | Confirm | AskStatus


class Problem(msgspec.Struct, frozen=True):
    """A message that could not be answered otherwise."""

    error: str
    refusal: Refusal | None = None
    """AUTH: the key is not, or no longer, let in. RATE: too much at once. None: not a request of this protocol."""


class Reply(msgspec.Struct, frozen=True):
    """Every reply: the token of its question and one of the bodies."""

    token: int
    hello: Hello | None = None
    range: RangeReply | None = None
    status: CommandStatus | None = None
    problem: Problem | None = None
    segments: SegmentsReply | None = None
    piece: PieceReply | None = None


def bounded(rows: list[RawRow]) -> list[RawRow]:
    """As many leading rows as fit into one message; at least one."""
    total = 0
    for count, row in enumerate(rows):
        total += len(row.body) + 64
        if total > MOST_BYTES and count:
            return rows[:count]
    return rows


def token_of(body: bytes) -> int:
    """The token of a request whose rest may be wrong, so that even a refusal reaches its asker; 0 when it has none."""
    try:
        return msgspec.msgpack.decode(body, type=_TokenOnly).token
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return 0


class _TokenOnly(msgspec.Struct):
    token: int = 0


questions = msgspec.msgpack.Decoder(Question)
orders = msgspec.msgpack.Decoder(Order)
replies = msgspec.msgpack.Decoder(Reply)
headers = msgspec.msgpack.Decoder(Header)
heartbeats = msgspec.msgpack.Decoder(Heartbeat)
row_lists = msgspec.msgpack.Decoder(list[RawRow])
pack = msgspec.msgpack.Encoder().encode


def explained(body: bytes, error: Exception) -> str:
    """Why a request could not be read, for its sender: a command by its field, its value and what is allowed."""
    try:
        asked = msgspec.msgpack.decode(body)
        sent = isinstance(asked, dict) and asked.get("ask") == "send"
        why = why_not(asked.get("request")) if sent else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError):
        why = None
    return why or f"not a request of this protocol: {error}"
