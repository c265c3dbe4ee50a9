"""Sealed rows of a run elsewhere come as checked files; what does not come whole, or not right, comes as ranges."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import end_agents
from tests.telemetry.examples import ONE_OF_EACH, step_record
from tests.telemetry.trainers import Trainer
from tests.telemetry.waiting import until
from tests.telemetry.wires import answered, dealer, endpoint
from trainer_core.spec.commands import Refusal
from trainer_core.spec.errors import RunError
from trainer_core.spec.records import Row
from trainer_core.telemetry import wire
from trainer_core.telemetry.codec import PRESENT, RawRow
from trainer_core.telemetry.follower import Follower
from trainer_core.telemetry.journal import JournalReader, JournalWriter
from trainer_core.telemetry.keys import create, revoke
from trainer_core.telemetry.sealing import seal
from trainer_core.telemetry.segment_transfer import RemoteSegments, listing, piece, sealed_through

ROWS, SEGMENT, KEPT = 26_000, 5_000, 1_000
"""More than a follower asks for as ranges when it joins."""


def sealed_run(run_dir: Path, rows: int = ROWS, segment: int = SEGMENT) -> None:
    """A journal with every kind of record among incompressible steps, sealed and compacted."""
    run_dir.mkdir(parents=True, exist_ok=True)
    chance = random.Random(7)
    records = [
        ONE_OF_EACH[i % len(ONE_OF_EACH)]
        if i % 50 == 0
        else step_record(i, loss=chance.random(), layer_grad_norms=tuple(chance.random() for _ in range(40)))
        for i in range(rows)
    ]
    writer = JournalWriter(run_dir)
    writer.append([(float(i), 0, record) for i, record in enumerate(records)])
    seal(run_dir, segment, min(KEPT, rows // 10))
    while writer.compact(min(KEPT, rows // 10)):
        pass
    writer.close()


def served(run_dir: Path) -> Iterator[Trainer]:
    create(run_dir, "ann", "viewer", run_dir / "ann.json")
    with Trainer(run_dir, obeys=False, listen="127.0.0.1") as trainer:
        until(lambda: (run_dir / "endpoint.json").exists())
        yield trainer


@pytest.fixture
def far(run_dir: Path) -> Iterator[Trainer]:
    sealed_run(run_dir)
    yield from served(run_dir)


def there(run_dir: Path) -> str:
    return str(endpoint(run_dir)["news"]).removeprefix("tcp://")


def followed(run_dir: Path, then: Callable[[Follower, list[Row]], None] = lambda follower, rows: None) -> Follower:
    """Follow to the newest row; every row that the journal has whole came once, in order. ``then``: after each poll."""
    with Follower(there(run_dir), key_file=run_dir / "ann.json") as follower:
        rows: list[Row] = []

        def arrived() -> bool:
            more = follower.poll(0.1)
            assert len(more) <= wire.MOST_ROWS, "in portions"
            rows.extend(more)
            then(follower, rows)
            return follower.seq >= follower.newest >= ROWS

        until(arrived, within=60)
        reader = JournalReader(run_dir)
        whole = reader.rows(0, 10**6)
        assert repr(rows) == repr(whole[: len(rows)]) and len(rows) + len(follower.damaged) >= ROWS
        assert follower.damaged <= reader.damaged
        reader.close()
        return follower


def test_a_far_follower_gets_sealed_rows_as_files_and_the_rest_as_ranges_and_news(far: Trainer) -> None:
    def go_on(follower: Follower, rows: list[Row]) -> None:
        if len(rows) < ROWS and not far.step:
            far.steps(50)

    follower = followed(far.run_dir, go_on)
    assert follower.segments is not None and follower.segments.fetched >= 2, "until less than 20,000 rows lack"
    assert not follower.segments.passed_over and not follower.damaged


def test_a_segment_that_vanished_is_asked_for_as_ranges(far: Trainer) -> None:
    reader = JournalReader(far.run_dir)
    gone = reader.sealed.all[1]
    reader.close()

    def lose_it(follower: Follower, rows: list[Row]) -> None:
        if rows:
            gone.path.unlink(missing_ok=True)

    follower = followed(far.run_dir, lose_it)
    assert follower.segments is not None and follower.segments.passed_over <= {gone.digest}
    assert follower.damaged, "its bulk was nowhere else"
    assert follower.damaged <= set(range(gone.first, gone.last + 1))


def test_a_damaged_segment_is_never_shown_and_its_rows_come_as_ranges(far: Trainer) -> None:
    reader = JournalReader(far.run_dir)
    bad = reader.sealed.all[0]
    reader.close()
    content = bytearray(bad.path.read_bytes())
    content[len(content) // 2] ^= 1
    bad.path.write_bytes(content)
    follower = followed(far.run_dir)
    assert follower.segments is not None and follower.segments.passed_over == {bad.digest}
    assert follower.damaged and follower.damaged <= set(range(bad.first, bad.last + 1))


def test_a_key_that_is_revoked_while_a_segment_comes_ends_the_following(far: Trainer) -> None:
    def take_it_away(follower: Follower, rows: list[Row]) -> None:
        if follower.segments is not None and follower.segments.has(follower.seq + 1) and not revoked:
            revoked.append(revoke(far.run_dir, "ann"))

    revoked: list[object] = []
    with pytest.raises(RunError, match=r"revoked|not let in"):
        followed(far.run_dir, take_it_away)
    assert revoked


def test_a_viewer_gets_bounded_pieces_of_segments_by_digest_and_of_nothing_else(far: Trainer) -> None:
    def asked(question: object) -> wire.Reply:
        reply = answered(socket, [wire.pack(question)], 5000)
        assert reply is not None and len(reply) <= wire.MOST_BYTES
        return wire.replies.decode(reply)

    files = {path.name: path for path in far.run_dir.glob("segments-*/*.parquet")}
    with dealer(far.run_dir, "questions", "viewer") as socket:
        hello = asked(wire.AskHello()).hello
        assert hello is not None and hello.sealed_through == 25_000
        listed = asked(wire.AskSegments(after=5_000)).segments
        assert listed is not None and [file.first for file in listed.segments] == [5001, 10001, 15001, 20001]
        for file in listed.segments[:1]:
            content = b""
            while len(content) < file.bytes:
                part = asked(wire.AskPiece(digest=file.digest, offset=len(content))).piece
                assert part is not None and part.content and len(part.content) <= wire.MOST_PIECE_BYTES
                content += part.content
            assert content == files[f"{file.first:012}-{file.last:012}-{file.digest}.parquet"].read_bytes()
            assert len(content) > wire.MOST_PIECE_BYTES, "more than one piece"
            beyond = asked(wire.AskPiece(digest=file.digest, offset=2**40)).piece
            assert beyond is not None and beyond.content == b""
        unknown = asked(wire.AskPiece(digest="0" * 32, offset=0)).piece
        assert unknown is not None and unknown.content is None
        for digest in ("../../keys/server.key", "0" * 31, "0" * 33, "", "0" * 31 + "\n", "G" * 32):
            assert asked(wire.AskPiece(digest=digest, offset=0)).problem is not None
        assert asked(wire.AskPiece(digest="0" * 32, offset=-1)).problem is not None
        assert asked(wire.AskSegments(after=-1)).problem is not None
    with dealer(far.run_dir, "commands", "operator") as socket:
        assert asked(wire.AskSegments(after=0)).problem is not None, "commands are never queued behind a replay"


def test_who_asks_for_much_and_reads_nothing_costs_the_agent_little_memory(far: Trainer) -> None:
    with dealer(far.run_dir, "questions", "viewer") as socket:
        listed = wire.replies.decode(answered(socket, [wire.pack(wire.AskSegments(after=0))], 5000) or b"").segments
        assert listed is not None
        agent = psutil.Process(int(endpoint(far.run_dir)["pid"]))
        before = agent.memory_info().rss
        question = wire.pack(wire.AskPiece(digest=listed.segments[0].digest, offset=0))
        for _ in range(900):
            socket.send(question)
        with Follower(far.run_dir) as other:
            until(lambda: other.poll(0.1) is not None and other.live)
        with dealer(far.run_dir, "questions", "operator") as another:
            assert answered(another, [wire.pack(wire.AskHello())], 10_000), "behind all of them, and answered"
        grown = agent.memory_info().rss - before
    assert grown < 200 << 20, "900 pieces would be 450 MiB"


# -- the receiver alone, before an agent that answers badly ------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JournalReader]:
    folder = tmp_path_factory.mktemp("small")
    sealed_run(folder / "r", rows=600, segment=200)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "MOST_PIECE_BYTES", 20_000)
        reader = JournalReader(folder / "r")
        yield reader
        reader.close()
    end_agents(folder)


ANSWERS = st.sampled_from(["right"] * 4 + ["none", "problem", "gone", "empty", "short", "flipped", "other", "long"])


def badly(reader: JournalReader, answers: Iterator[str]) -> Callable[[wire.Question], wire.Reply | None]:
    """An agent that answers as ``answers`` say."""

    def ask(question: wire.Question) -> wire.Reply | None:
        if isinstance(question, wire.AskSegments):
            return wire.Reply(0, segments=listing(reader, question.after))
        assert isinstance(question, wire.AskPiece)
        right = piece(reader, question.digest, question.offset)
        content = right.content or b""
        match next(answers, "right"):
            case "none":
                return None
            case "problem":
                return wire.Reply(0, problem=wire.Problem("too much", Refusal.RATE))
            case "gone":
                content = None
            case "empty":
                content = b""
            case "short":
                content = content[:7]
            case "flipped":
                content = bytes([content[0] ^ 1]) + content[1:]
            case "other":
                return wire.Reply(0, piece=wire.PieceReply("f" * 32, question.offset, content))
            case "long":
                content += bytes(10**6)
        return wire.Reply(0, piece=wire.PieceReply(right.digest, right.offset, content))

    return ask


@settings(max_examples=60, deadline=None)
@given(answers=st.lists(ANSWERS, max_size=40))
def test_whatever_an_agent_answers_rows_are_right_or_left_to_ranges(small: JournalReader, answers: list[str]) -> None:
    there = {row.seq: row for row in small.raw_rows(0, 10**4)}
    segments = RemoteSegments(badly(small, iter(answers)), small.journal_id, PRESENT)
    after, asked, end, got = 0, 0, sealed_through(small), list[RawRow]()
    while after < end:
        asked += 1
        assert asked < 500, "it comes to an end"
        page = segments.page(after, 70)
        if page is None:  # as a follower does: a range
            after = min(end, after + 50)
            continue
        assert page.through >= after and (page.rows or page.through == after)
        got += page.rows
        after = page.through
    assert all(row == there[row.seq] for row in got)
    assert len({row.seq for row in got}) == len(got)
    if set(answers) <= {"right"}:
        assert len(got) == end == 400 and segments.fetched == 2
