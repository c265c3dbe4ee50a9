"""Sealed segments over the sockets: an agent hands them out in pieces, a follower puts them together. Opens no socket.

Millions of rows come as some dozens of compressed files instead of thousands of ranges. What arrives is believed only
when its digest holds; what does not is asked for as ranges, as without segments.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from trainer_core.telemetry import wire
from trainer_core.telemetry.codec import RawRow, StepLayout
from trainer_core.telemetry.journal import JournalReader
from trainer_core.telemetry.segments import ENVELOPE, VECTOR, SegmentDamaged, digest_of, raw_rows, table_in

if TYPE_CHECKING:
    import polars as pl

MOST_BYTES = 256 << 20
"""A larger segment is not fetched: its rows come as ranges."""
_TRIES = 3
_LIST_AGAIN_S = 5.0

Ask = Callable[[wire.Question], wire.Reply | None]
"""One question to the agent; None when no answer came."""


# -- the agent's side -------------------------------------------------------------------------------------------------


def sealed_through(journal: JournalReader) -> int:
    """The last row that is in a segment; 0 when none is."""
    journal.sealed.refresh()
    return max((segment.last for segment in journal.sealed.all), default=0)


def listing(journal: JournalReader, after: int) -> wire.SegmentsReply:
    """The oldest ``wire.MOST_SEGMENTS`` segments that hold rows after ``after``."""
    journal.sealed.refresh()
    found = [segment for segment in journal.sealed.all if segment.last > after][: wire.MOST_SEGMENTS]
    files = []
    for segment in found:
        try:
            size = segment.path.stat().st_size
        except OSError:
            continue  # set aside a moment ago
        files.append(wire.SealedFile(segment.first, segment.last, size, segment.digest))
    return wire.SegmentsReply(journal.journal_id, files)


def piece(journal: JournalReader, digest: str, offset: int) -> wire.PieceReply:
    """Bytes of the segment of this journal that has the digest; unchecked, the receiver sees the whole."""
    segment = next((segment for segment in journal.sealed.all if segment.digest == digest), None)
    content = None
    if segment is not None:
        try:
            with segment.path.open("rb") as file:
                file.seek(offset)
                content = file.read(wire.MOST_PIECE_BYTES)
        except OSError:
            content = None  # set aside, or the disk fails: its rows are still to be had as ranges
    return wire.PieceReply(digest, offset, content)


# -- the follower's side ----------------------------------------------------------------------------------------------


class Page(NamedTuple):
    """Rows after the one that was asked about; all there are up to ``through``."""

    rows: list[RawRow]
    through: int


class RemoteSegments:
    """The sealed rows of a journal elsewhere, fetched piece by piece. Holds one segment at a time."""

    def __init__(self, ask: Ask, journal_id: str, layout: StepLayout) -> None:
        self._ask, self._journal_id, self._layout = ask, journal_id, layout
        self._files: list[wire.SealedFile] = []
        self._listed_at: float | None = None
        self._fetching: wire.SealedFile | None = None
        self._content, self._tries = bytearray(), 0
        self._held: tuple[wire.SealedFile, pl.DataFrame] | None = None
        self.passed_over: set[str] = set()
        """Digests of segments that are not to be had, or are not what they should be: their rows come as ranges."""
        self.fetched = 0
        """Segments that came whole."""

    def has(self, seq: int) -> bool:
        """Whether the segment that holds a row is here, in part or whole."""
        file = self._fetching or (self._held[0] if self._held is not None else None)
        return file is not None and file.first <= seq <= file.last

    def page(self, after_seq: int, limit: int) -> Page | None:
        """Up to ``limit`` sealed rows after ``after_seq``; an empty page when another piece was fetched, ask again.

        None when no segment that can be had holds the next row: ask for a range.
        """
        if self._held is not None and self._held[0].first <= after_seq + 1 <= self._held[0].last:
            return self._rows(*self._held, after_seq, limit)
        self._held = None
        wanted = self._with(after_seq + 1)
        if wanted is None:
            self._fetching = None
            return None
        self._fetch(wanted)
        return Page([], after_seq)

    def _rows(self, file: wire.SealedFile, table: "pl.DataFrame", after_seq: int, limit: int) -> Page:
        import polars as pl

        through = min(file.last, after_seq + limit)
        rows = table.filter((pl.col("seq") > after_seq) & (pl.col("seq") <= through))
        return Page(raw_rows(rows, self._layout), through)

    def _with(self, seq: int) -> wire.SealedFile | None:
        """The listed segment that holds a row; lists anew now and then where none does."""
        for may_list in (True, False):
            for file in self._files:
                if file.first <= seq <= file.last and file.digest not in self.passed_over:
                    return file
            if not may_list or not self._list(seq - 1):
                break
        return None

    def _list(self, after: int) -> bool:
        now = time.monotonic()
        if self._listed_at is not None and now - self._listed_at < _LIST_AGAIN_S:
            return False
        self._listed_at = now
        reply = self._ask(wire.AskSegments(after=after))
        if reply is None or reply.segments is None or reply.segments.journal_id != self._journal_id:
            return False
        self._files = [file for file in reply.segments.segments if 0 < file.bytes <= MOST_BYTES]
        return True

    def _fetch(self, wanted: wire.SealedFile) -> None:
        """One more piece of it."""
        if self._fetching != wanted:
            self._fetching, self._content, self._tries = wanted, bytearray(), 0
        reply = self._ask(wire.AskPiece(digest=wanted.digest, offset=len(self._content)))
        if reply is None or reply.piece is None:
            self._tries += 1
            if self._tries >= _TRIES:
                self._pass_over(wanted)
            return
        self._tries = 0
        said = reply.piece
        if said.digest != wanted.digest or said.offset != len(self._content) or not said.content:
            return self._pass_over(wanted)
        self._content += said.content
        if len(self._content) > wanted.bytes:
            return self._pass_over(wanted)
        if len(self._content) == wanted.bytes:
            self._open(wanted)

    def _open(self, wanted: wire.SealedFile) -> None:
        content, self._fetching, self._content = bytes(self._content), None, bytearray()
        try:
            if digest_of(content) != wanted.digest:
                raise SegmentDamaged(f"segment {wanted.digest} came damaged: its checksum does not hold")
            columns = [*ENVELOPE, *self._layout.fields, VECTOR]
            self._held = (wanted, table_in(content, f"segment {wanted.digest}", columns))
            self.fetched += 1
        except SegmentDamaged:
            self._pass_over(wanted)

    def _pass_over(self, wanted: wire.SealedFile) -> None:
        self.passed_over.add(wanted.digest)
        self._fetching, self._content = None, bytearray()
