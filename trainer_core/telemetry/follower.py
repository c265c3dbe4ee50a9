"""Every row of a run, once, in order: live over the socket when an agent answers, from the journal when not.

Clone pattern (ZeroMQ Guide): subscribe, wait for the welcome, ask for what is missing, merge by seq. News that arrive
early are kept; a hole, or a heartbeat that knows of newer rows, is asked for as a range. Keeps no history of its own.
Of a run on another machine there is no journal to read: everything comes over the sockets, old rows as sealed segments.
"""

import contextlib
import time
from pathlib import Path
from typing import Any

import msgspec
import zmq

from trainer_core.spec.commands import Refusal
from trainer_core.spec.errors import RunError
from trainer_core.spec.records import Row
from trainer_core.telemetry import wire
from trainer_core.telemetry.auth import QUESTIONS, secure_client
from trainer_core.telemetry.client import Line
from trainer_core.telemetry.codec import PRESENT, PROTOCOL, CodecError, RawRow, StepLayout, decode
from trainer_core.telemetry.doors import Door
from trainer_core.telemetry.journal import JournalReader
from trainer_core.telemetry.rundir import RunStatus, status
from trainer_core.telemetry.segment_transfer import RemoteSegments

_LOOK_S, _CHECK_S, _QUIET_S, _MOST_KEPT = 0.05, 0.5, 3.0, 20_000
_FIRST_ANSWER_S = 5.0
_ANSWER_S, _FAR_ANSWER_S = 1.0, 5.0
"""How long an answer may take here, and from elsewhere: a megabyte over a slow line."""
_MOST_NEWS = 500
"""News messages taken in at once."""
_FAR_BEHIND = 10 * wire.MOST_ROWS
"""Rows from which on the files themselves are read: ten replies would keep the agent from its news."""


class Follower:
    """Follows one run from after ``after_seq``. Not for sharing between threads.

    ``where``: a run directory, or HOST:PORT of an agent elsewhere together with ``key_file`` (``hybrid keys create``).
    Raises JournalError for no run; RunError when nobody answers at HOST:PORT, or the key is not let in there.
    """

    def __init__(self, where: str | Path, after_seq: int = 0, *, key_file: str | Path | None = None) -> None:
        self.run_dir = Path(where)
        self._door = Door(where, "viewer", key_file)
        self._questions = Line(self._door, QUESTIONS)
        self.seq = after_seq
        """Newest seq handed out."""
        self.heartbeat: wire.Heartbeat | None = None
        """The agent's last; None when no agent is heard."""
        self.damaged: set[int] = set()
        """Rows left out because their checksum failed."""
        self._context: zmq.Context[Any] = zmq.Context.instance()
        self._news: zmq.Socket[Any] | None = None
        self._epoch = ""
        self._welcomed = False
        self._heard_at = 0.0
        self._looked_at = self._checked_at = self._answered_at = 0.0
        self._known_seq = 0
        self._early: dict[int, RawRow] = {}
        self._gone: set[int] = set()
        """Rows that the agent's journal does not have whole either."""
        self._journal = JournalReader(self.run_dir) if self._door.run_dir is not None else None
        self._hello: wire.Hello | None = None
        self.segments: RemoteSegments | None = None
        """Of a run elsewhere whose agent hands them out."""
        if self._journal is not None:
            self.journal_id, self._layout = self._journal.journal_id, self._journal.layout
        else:
            self._greet(_FIRST_ANSWER_S)

    @property
    def live(self) -> bool:
        """Whether an agent has been heard in the last seconds."""
        return self._welcomed and time.monotonic() - self._heard_at < _QUIET_S

    def poll(self, timeout_s: float) -> list[Row]:
        """New rows, contiguous and at most a few thousand; empty when none came within ``timeout_s`` seconds.

        Raises JournalError when the run's files can no longer be read; RunError when an agent elsewhere no longer lets
        the key in.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self._look_for_another_journal()
            self._connect()
            left = deadline - time.monotonic()
            fetching = self.segments is not None and self.segments.has(self.seq + 1)
            self._listen(0.0 if fetching else max(0.0, min(left, _LOOK_S)))
            rows = self._contiguous() or self._repaired()
            if rows:
                return rows
            if left <= 0:
                return []

    @property
    def newest(self) -> int:
        """The newest seq that is known of."""
        return self._journal.last_seq() if self._journal is not None else max(self._known_seq, self.seq)

    def status(self) -> RunStatus:
        """How the run is doing: the heartbeat's word while one is heard, else read from the files.

        Of a run elsewhere that is not heard: ``unreachable``.
        """
        if self.live and self.heartbeat is not None:
            return self.heartbeat.status
        if self._door.run_dir is not None:
            return status(self._door.run_dir)
        if self._hello is not None and time.monotonic() - self._answered_at < _QUIET_S:
            return self._hello.status
        return RunStatus("unreachable", f"no agent answers at {self._door.where}", self._last_step())

    def _last_step(self) -> int:
        told = self.heartbeat or self._hello
        return told.status.step if told is not None else 0

    def _look_for_another_journal(self) -> None:
        """A journal that was set aside or replaced has another id: begin again at its first row."""
        now = time.monotonic()
        if self._journal is None or now - self._checked_at < _CHECK_S:
            return
        self._checked_at = now
        if self._journal.in_place():
            return
        present = JournalReader(self.run_dir)
        self._journal.close()
        self._journal = present
        if present.journal_id != self.journal_id:
            self._disconnect()
            self._begin_again(present.journal_id, present.layout)

    def _begin_again(self, journal_id: str, layout: StepLayout) -> None:
        self.journal_id, self._layout = journal_id, layout
        self.seq, self._known_seq, self._looked_at = 0, 0, 0.0
        self._early, self.damaged, self._gone = {}, set(), set()

    def _greet(self, timeout_s: float) -> None:
        """Ask an agent elsewhere who it is. Raises RunError when it lets the key in no more, or never answered."""
        reply = self._questions.ask(wire.AskHello(), timeout_s)
        if reply is None and self._hello is None:
            raise RunError(
                f"no agent answers at {self._door.where}: is the run served there, and is the key one of that run's?"
            )
        if reply is None:
            return
        if reply.hello is None:
            raise RunError(reply.problem.error if reply.problem else f"{self._door.where}: not an agent's answer")
        if self._hello is None or reply.hello.journal_id != self.journal_id:
            again = self._hello is not None
            layout = StepLayout(reply.hello.step_fields) if reply.hello.step_fields else PRESENT
            if again:
                self._begin_again(reply.hello.journal_id, layout)
            self.journal_id, self._layout = reply.hello.journal_id, layout
            served = reply.hello.sealed_through is not None
            self.segments = RemoteSegments(self._asked, self.journal_id, layout) if served else None
        self._hello, self._answered_at = reply.hello, time.monotonic()
        self._known_seq = max(self._known_seq, reply.hello.last_seq)

    # -- the socket -------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        now, far = time.monotonic(), self._door.run_dir is None
        if (self.live or now - self._looked_at < (_QUIET_S if far else _QUIET_S / 3)) and self._looked_at:
            return
        if far and self._looked_at:
            self._greet(_QUIET_S / 3)  # also whether the key is still let in
            self._epoch = ""  # a socket that was refused once never tries again
        self._looked_at = time.monotonic()
        try:
            endpoint = self._door.endpoint()
            if endpoint is None or endpoint.epoch == self._epoch:
                return
            key = self._door.key()
        except RunError:
            if far:
                raise
            return  # keys or protocol not ours: the journal is still there to read
        self._disconnect()
        socket = self._context.socket(zmq.SUB)
        socket.linger = 0
        socket.ipv6 = "[" in endpoint.news
        try:
            secure_client(socket, endpoint.server_key, key)
        except RunError:
            socket.close()
            if far:
                raise
            return
        for topic in (wire.TOPIC_WELCOME, wire.TOPIC_ROWS, wire.TOPIC_BEAT):
            socket.subscribe(topic)
        socket.connect(endpoint.news)
        self._news, self._epoch, self._welcomed = socket, endpoint.epoch, False

    def _disconnect(self) -> None:
        if self._news is not None:
            self._news.close()
        self._news, self._epoch, self._welcomed, self.heartbeat = None, "", False, None

    def _listen(self, wait_s: float) -> None:
        """Take in what the agent says for up to ``wait_s`` seconds; returns at the first rows."""
        if self._news is None:
            time.sleep(wait_s)
            return
        if not self._news.poll(int(wait_s * 1000)):
            return
        with contextlib.suppress(zmq.Again):
            for _ in range(_MOST_NEWS):
                self._take(self._news.recv_multipart(zmq.NOBLOCK))

    def _take(self, frames: list[bytes]) -> None:
        self._heard_at = time.monotonic()
        try:
            if frames[0] == wire.TOPIC_WELCOME:
                self._welcomed = True
            elif frames[0] == wire.TOPIC_BEAT and len(frames) == 2:
                beat = wire.heartbeats.decode(frames[1])
                if beat.protocol == PROTOCOL and beat.journal_id == self.journal_id:
                    self.heartbeat = beat
                    self._known_seq = max(self._known_seq, beat.last_seq)
                elif self._door.run_dir is None:
                    self._greet(_QUIET_S / 3)
            elif frames[0] == wire.TOPIC_ROWS and len(frames) == 3:
                header = wire.headers.decode(frames[1])
                if header.protocol == PROTOCOL and header.journal_id == self.journal_id:
                    self._keep(wire.row_lists.decode(frames[2]))
        except msgspec.MsgspecError:
            return  # news that cannot be read is a hole, and holes are repaired

    def _keep(self, rows: list[RawRow]) -> None:
        for row in rows:
            self._known_seq = max(self._known_seq, row.seq)
            if self.seq < row.seq <= self.seq + _MOST_KEPT and row.intact:  # what is further ahead is asked for in time
                self._early[row.seq] = row

    # -- in order ---------------------------------------------------------------------------------------------------

    def _contiguous(self) -> list[Row]:
        rows = []
        while True:
            if (raw := self._early.pop(self.seq + 1, None)) is not None:
                self.seq += 1
                try:
                    record = decode(raw.kind, raw.body, self._layout)  # its checksum was looked at when it was kept
                    rows.append(Row(raw.seq, raw.time, raw.attempt, record))
                except CodecError:
                    self.damaged.add(raw.seq)
            elif self.seq + 1 in self._gone:
                self.seq += 1
                self._gone.discard(self.seq)
            else:
                return rows

    def _repaired(self) -> list[Row]:
        """Ask for what is missing before the rows that came early; with no agent, or far behind, read the journal."""
        if self._journal is not None and (not self.live or self._known_seq - self.seq > _FAR_BEHIND):
            return self._from_journal()
        if self._known_seq <= self.seq:
            return []
        far_behind = self._known_seq - self.seq > _FAR_BEHIND
        if self.segments is not None and (far_behind or self.segments.has(self.seq + 1)):
            page = self.segments.page(self.seq, wire.MOST_ROWS)
            if page is not None:
                return self._whole(page.rows, self.seq + 1, page.through)
        last = min(self._early, default=self._known_seq + 1) - 1
        ask = wire.AskRange(first=self.seq + 1, last=max(last, self.seq + 1))
        reply = self._asked(ask)
        if reply is None or reply.range is None or reply.range.journal_id != self.journal_id:
            return self._from_journal()
        if self._journal is not None:
            self._keep(reply.range.rows)
            return self._contiguous() or self._from_journal()
        rows = reply.range.rows
        return self._whole(rows, ask.first, rows[-1].seq if rows else min(ask.last, reply.range.last_seq))

    def _asked(self, question: wire.Question) -> wire.Reply | None:
        """The agent's answer. Raises RunError when one elsewhere no longer lets the key in."""
        reply = self._questions.ask(question, _ANSWER_S if self._journal is not None else _FAR_ANSWER_S)
        if self._journal is None and reply and reply.problem and reply.problem.refusal is Refusal.AUTH:
            raise RunError(reply.problem.error)
        return reply

    def _whole(self, rows: list[RawRow], first: int, last: int) -> list[Row]:
        """Rows of a run elsewhere, all it has from ``first`` to ``last``: what lacks is damaged, and it goes on."""
        self._keep(rows)
        missing = {seq for seq in range(first, last + 1) if seq not in self._early}
        self.damaged |= missing
        self._gone |= missing
        return self._contiguous()

    def _from_journal(self) -> list[Row]:
        """The journal is the truth: rows that are damaged there are damaged, and the run goes on after them."""
        if self._journal is None:
            return []
        rows = self._journal.rows(after_seq=self.seq, limit=wire.MOST_ROWS)
        self.damaged |= self._journal.damaged
        if not rows:
            return []
        self.seq = rows[-1].seq
        self._known_seq = max(self._known_seq, self.seq)
        self._early = {seq: row for seq, row in self._early.items() if seq > self.seq}
        return rows

    def close(self) -> None:
        self._disconnect()
        self._questions.close()
        if self._journal is not None:
            self._journal.close()

    def __enter__(self) -> "Follower":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
