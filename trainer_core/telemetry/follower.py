"""Every row of a run, once, in order: live over the socket when an agent answers, from the journal when not.

Clone pattern (ZeroMQ Guide): subscribe, wait for the welcome, ask for what is missing, merge by seq. News that arrive
early are kept; a hole, or a heartbeat that knows of newer rows, is asked for as a range. Keeps no history of its own.
"""

import time
from pathlib import Path
from typing import Any

import msgspec
import zmq

from trainer_core.spec.errors import RunError
from trainer_core.spec.records import Row
from trainer_core.telemetry import wire
from trainer_core.telemetry.auth import read_key, secure_client
from trainer_core.telemetry.client import Line
from trainer_core.telemetry.codec import PROTOCOL, CodecError, RawRow, decode_row
from trainer_core.telemetry.endpoint import read_endpoint
from trainer_core.telemetry.journal import JournalReader
from trainer_core.telemetry.rundir import RunStatus, status

_LOOK_S, _CHECK_S, _QUIET_S, _MOST_KEPT = 0.05, 0.5, 3.0, 20_000

_FAR_BEHIND = 10 * wire.MOST_ROWS
"""Rows from which on the files themselves are read: ten replies would keep the agent from its news."""


class Follower:
    """Follows one run from after ``after_seq``. Not for sharing between threads. Raises JournalError for no run."""

    def __init__(self, run_dir: Path, after_seq: int = 0) -> None:
        self.run_dir = Path(run_dir)
        self._journal = JournalReader(self.run_dir)
        self.journal_id = self._journal.journal_id
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
        self._looked_at = self._checked_at = 0.0
        self._known_seq = 0
        self._early: dict[int, RawRow] = {}
        self._questions = Line(self.run_dir, "viewer", "questions")

    @property
    def live(self) -> bool:
        """Whether an agent has been heard in the last seconds."""
        return self._welcomed and time.monotonic() - self._heard_at < _QUIET_S

    def poll(self, timeout_s: float) -> list[Row]:
        """New rows, contiguous and at most a few thousand; empty when none came within ``timeout_s`` seconds.

        Raises JournalError when the run's files can no longer be read.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self._look_for_another_journal()
            self._connect()
            left = deadline - time.monotonic()
            self._listen(max(0.0, min(left, _LOOK_S)))
            rows = self._contiguous() or self._repaired()
            if rows:
                return rows
            if left <= 0:
                return []

    def status(self) -> RunStatus:
        """How the run is doing: the heartbeat's word while one is heard, else read from the files."""
        return self.heartbeat.status if self.live and self.heartbeat is not None else status(self.run_dir)

    def _look_for_another_journal(self) -> None:
        """A journal that was set aside or replaced has another id: begin again at its first row."""
        now = time.monotonic()
        if now - self._checked_at < _CHECK_S or self._journal.in_place():
            return
        self._checked_at = now
        present = JournalReader(self.run_dir)
        self._journal.close()
        self._journal = present
        if present.journal_id != self.journal_id:
            self._disconnect()
            self.journal_id, self.seq, self._known_seq, self._looked_at = present.journal_id, 0, 0, 0.0
            self._early, self.damaged = {}, set()

    # -- the socket -------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        now = time.monotonic()
        if (self.live or now - self._looked_at < _QUIET_S / 3) and self._looked_at:
            return
        self._looked_at = now
        try:
            endpoint = read_endpoint(self.run_dir)
            if endpoint is None or endpoint.epoch == self._epoch:
                return
            self._disconnect()
            socket = self._context.socket(zmq.SUB)
            socket.linger = 0
            secure_client(socket, endpoint.server_key, read_key(self.run_dir, "viewer"))
        except RunError:
            return  # keys or protocol not ours: the journal is still there to read
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
        while len(self._early) < _MOST_KEPT and self._news.poll(0):
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
            elif frames[0] == wire.TOPIC_ROWS and len(frames) == 3:
                header = wire.headers.decode(frames[1])
                if header.protocol == PROTOCOL and header.journal_id == self.journal_id:
                    self._keep(wire.row_lists.decode(frames[2]))
        except msgspec.MsgspecError:
            return  # news that cannot be read is a hole, and holes are repaired

    def _keep(self, rows: list[RawRow]) -> None:
        for row in rows:
            self._known_seq = max(self._known_seq, row.seq)
            if row.seq > self.seq and row.intact:
                self._early[row.seq] = row

    # -- in order ---------------------------------------------------------------------------------------------------

    def _contiguous(self) -> list[Row]:
        rows = []
        while (raw := self._early.pop(self.seq + 1, None)) is not None:
            self.seq += 1
            try:
                rows.append(decode_row(raw, self._journal.layout))
            except CodecError:
                self.damaged.add(raw.seq)
        return rows

    def _repaired(self) -> list[Row]:
        """Ask for what is missing before the rows that came early; with no agent, or far behind, read the journal."""
        if not self.live or self._known_seq - self.seq > _FAR_BEHIND:
            return self._from_journal()
        if self._known_seq <= self.seq:
            return []
        last = min(self._early, default=self._known_seq + 1) - 1
        ask = wire.AskRange(first=self.seq + 1, last=max(last, self.seq + 1))
        reply = self._questions.ask(ask, timeout_s=1.0)
        if reply is None or reply.range is None or reply.range.journal_id != self.journal_id:
            return self._from_journal()
        self._keep(reply.range.rows)
        return self._contiguous() or self._from_journal()

    def _from_journal(self) -> list[Row]:
        """The journal is the truth: rows that are damaged there are damaged, and the run goes on after them."""
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
        self._journal.close()

    def __enter__(self) -> "Follower":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
