"""Files and messages of earlier days: what was written then is read today, and means the same.

``golden/`` is never written again: a new format gets a new folder. ``rows.json`` holds what the rows said when
they were written; fields that came later are "not measured" in them.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.telemetry.examples import step_record
from trainer_core.spec.commands import CommandRequest, CommandState, SetThreshold
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import StepRecord
from trainer_core.telemetry import wire
from trainer_core.telemetry.codec import RawRow
from trainer_core.telemetry.exports import frame
from trainer_core.telemetry.follower import Follower
from trainer_core.telemetry.journal import JournalReader, JournalWriter
from trainer_core.telemetry.rundir import RunStatus

GOLDEN = Path(__file__).parent / "golden"
STATUS = RunStatus("working", "steps are coming", 7, 100, Phase.FULL, 0.5, True, True)
MESSAGES: dict[str, Any] = {
    "hello?": wire.AskHello(token=1),
    "range?": wire.AskRange(token=2, first=3, last=9),
    "status?": wire.AskStatus(token=3, command_id="c" * 8),
    "send": wire.Send(
        token=4, request=CommandRequest("c" * 8, SetThreshold("confidence_threshold", 0.9), 2, 40, 60.0, "why")
    ),
    "confirm": wire.Confirm(token=5, command_id="c" * 8),
    "header": wire.Header(1, "j", "e", 3, 4, 2),
    "beat": wire.Heartbeat(1, "j", "e", 9, 2, STATUS, 4, 1, 3),
    "rows": [RawRow(3, 1.5, 0, "note", b"\x80", 12345)],
    "hello": wire.Reply(1, hello=wire.Hello(1, "j", "e", 9, 2, "run", "viewer", STATUS)),
    "range": wire.Reply(2, range=wire.RangeReply("j", 9, [RawRow(3, 1.5, 0, "note", b"\x80", 12345)])),
    "status": wire.Reply(3, status=wire.CommandStatus("c" * 8, "set-threshold", CommandState.ACCEPTED)),
    "problem": wire.Reply(4, problem=wire.Problem("not a request")),
}
SEALED = wire.SealedFile(1, 50_000, 4096, "0f" * 16)
LATER: dict[str, Any] = {
    "segments?": wire.AskSegments(token=6, after=9),
    "piece?": wire.AskPiece(token=7, digest="0f" * 16, offset=4096),
    "segments": wire.Reply(6, segments=wire.SegmentsReply("j", [SEALED])),
    "piece": wire.Reply(7, piece=wire.PieceReply("0f" * 16, 4096, b"PAR1")),
    "no piece": wire.Reply(7, piece=wire.PieceReply("0f" * 16, 0, None)),
    "hello with segments": wire.Reply(
        1, hello=wire.Hello(1, "j", "e", 9, 2, "run", "viewer", STATUS, "ann", ("loss",), 50_000)
    ),
}
"""What was added to version 1, in ``wire-segments.json``."""
DECODERS: dict[str, Any] = {
    "header": wire.headers, "beat": wire.heartbeats, "rows": wire.row_lists,
    **dict.fromkeys(("hello?", "range?", "status?", "segments?", "piece?"), wire.questions),
    **dict.fromkeys(("send", "confirm"), wire.orders),
    **dict.fromkeys(("hello", "range", "status", "problem"), wire.replies),
    **dict.fromkeys(("segments", "piece", "no piece", "hello with segments"), wire.replies),
}  # fmt: skip


def still_says(now: Any, then: Any) -> bool:
    """Whether everything that was said then is said now, NaN and all; more may be said."""
    if isinstance(then, dict):
        return isinstance(now, dict) and all(key in now and still_says(now[key], then[key]) for key in then)
    if isinstance(then, list):
        return len(now) == len(then) and all(still_says(a, b) for a, b in zip(now, then, strict=True))
    return repr(now) == repr(then)


@pytest.fixture(params=["before-segments", "with-segments"])
def old_run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a run directory that was written by an earlier version."""
    return Path(shutil.copytree(GOLDEN / request.param, tmp_path / "run"))


def test_an_old_journal_says_what_it_said(old_run: Path) -> None:
    then = json.loads((old_run / "rows.json").read_text())
    reader = JournalReader(old_run)
    rows = reader.rows(limit=10**6)
    assert len(rows) == len(then) > 20 and not reader.damaged
    for row, was in zip(rows, then, strict=True):
        assert (row.seq, row.time, row.attempt) == (was["seq"], was["time"], was["attempt"])
        assert still_says(json.loads(json.dumps(msgspec.to_builtins(row.record))), was["record"]), row.seq
    steps = [row for row in rows if isinstance(row.record, StepRecord)]
    assert frame(old_run)["seq"].to_list() == [row.seq for row in steps]
    with Follower(old_run) as follower:
        assert [row.seq for row in follower.poll(0.0)] == [row.seq for row in rows]


def test_an_old_journal_is_written_on(old_run: Path) -> None:
    last = JournalReader(old_run).last_seq()
    writer = JournalWriter(old_run)
    assert writer.set_aside is None and not writer.losses
    writer.append([(1.0, 0, step_record(7, grad_norm=2.5))])
    writer.close()
    (row,) = JournalReader(old_run).last_rows(1)
    assert row.seq == last + 1 and isinstance(row.record, StepRecord) and row.record.grad_norm == 2.5


@pytest.mark.parametrize("name", [*MESSAGES, *LATER])
def test_an_old_message_means_what_it_meant(name: str) -> None:
    written = [json.loads((GOLDEN / file).read_text()) for file in ("wire.json", "wire-segments.json")]
    then = bytes.fromhex((written[0] | written[1])[name])
    assert DECODERS[name].decode(then) == (MESSAGES | LATER)[name]
