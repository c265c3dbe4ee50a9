"""The feed: it outlives its errors, catches up, notices another journal."""

import asyncio
import gc
import shutil
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.feed import IN_USE_S, MOST_FEEDS, Feed, Watch
from app.live import Hall, _Asked, _push
from app.screens.registry import PAGES
from app.store import Store
from app.widgets import now_line
from tests.app.conftest import until
from tests.app.rows import Script, cycled
from trainer_core.spec.records import Row
from trainer_core.telemetry.journal import FILE
from trainer_core.telemetry.rundir import RunStatus


class Socket:
    """A browser that says nothing."""

    def __init__(self) -> None:
        self.closed: list[int] = []

    async def send_text(self, _text: str) -> None:
        pass

    async def close(self, code: int, reason: str) -> None:
        self.closed.append(code)


class Journal:
    """Batches to hand out one a poll; an exception in their place is raised."""

    live = False

    def __init__(self, *batches: list[Row] | Exception, journal_id: str = "one") -> None:
        self.batches = list(batches)
        self.opened: list[int] = []
        self.journal_id = journal_id
        self.damaged: set[int] = set()

    def __call__(self, _run_dir: Path, after_seq: int) -> "Journal":
        self.opened.append(after_seq)
        return self

    def poll(self, timeout_s: float) -> list[Row]:
        if not self.batches:
            time.sleep(timeout_s)
            return []
        batch = self.batches.pop(0)
        if isinstance(batch, Exception):
            raise batch
        return batch

    def status(self) -> RunStatus:
        return RunStatus("working", "steps are coming")

    def close(self) -> None:
        pass


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Callable[..., Feed]]:
    feeds: list[Feed] = []

    def start(journal: Callable[[Path, int], Journal]) -> Feed:
        feeds.append(Feed(tmp_path, follow=journal))
        return feeds[-1]

    yield start
    for feed in feeds:
        feed.close()


def test_an_error_is_shown_and_then_goes_away(watching: Callable[..., Feed]) -> None:
    rows = cycled(2).rows
    journal = Journal(rows[:10], OSError("disk is gone"), rows[10:])
    feed = watching(journal)
    until(lambda: feed.connection.error, 5, "the error is shown")
    assert feed.connection.error == "OSError: disk is gone"
    until(lambda: feed.store.last_seq == len(rows), 5, "it goes on")
    until(lambda: feed.connection.error is None, 5, "the error goes away")
    assert journal.opened == [0, 10], "it goes on behind what it has"


def test_a_run_that_is_deleted_while_somebody_looks_is_said_to_be_gone_and_stays_on_the_page(
    written_run: Callable[[str, Script], Path],
) -> None:
    run_dir = written_run("run", cycled(2))
    feed = Feed(run_dir)
    try:
        until(lambda: feed.store.last_seq == len(cycled(2).rows), 10, "it has been read")
        shutil.rmtree(run_dir)
        until(lambda: feed.connection.error, 10, "it is said")
        assert feed.connection.error == f"{run_dir} is gone: deleted or moved. Shown is what had been read of it."
        assert feed.snapshot().steps.length
        run_dir.mkdir()
        no_journal = f"{run_dir} is not a run directory: it has no journal.db"
        until(lambda: feed.connection.error == no_journal, 10, "a directory without a journal is another thing")
    finally:
        feed.close()


def test_another_journal_replaces_what_was_known(watching: Callable[..., Feed], tmp_path: Path) -> None:
    journals = [Journal(cycled(3).rows), *[Journal(Script().start().steps(2).rows, journal_id="two")] * 2]
    (tmp_path / FILE).write_bytes(b"first")
    feed = watching(lambda run_dir, after: journals.pop(0)(run_dir, after))
    until(lambda: feed.store.last_seq == len(cycled(3).rows), 5, "the first journal")
    (tmp_path / "new").write_bytes(b"second")
    (tmp_path / "new").rename(tmp_path / FILE)
    until(lambda: feed.store.last_seq == 3, 5, "the new journal")
    assert feed.snapshot().steps.length == 2


def test_damaged_rows_are_said(watching: Callable[..., Feed]) -> None:
    journal = Journal(cycled(1).rows)
    journal.damaged = {4, 5}
    feed = watching(journal)
    until(lambda: feed.connection.error, 5, "the banner")
    assert feed.connection.error == "2 damaged rows of the journal were left out"


def test_waiting_ends_when_the_past_has_been_read(watching: Callable[..., Feed]) -> None:
    rows = Script().start().steps(1500).rows
    feed = watching(Journal(rows[:1000], rows[1000:]))
    assert feed.wait(5)
    assert feed.store.last_seq == len(rows)


def test_feeds_are_kept_few_and_end(written_run: Callable[[str, Script], Path], runs_dir: Path) -> None:
    for number in range(MOST_FEEDS + 2):
        written_run(f"run-{number}", Script().start().steps(1))
    watch = Watch(runs_dir)
    feeds = [watch.feed(f"run-{number}") for number in range(MOST_FEEDS + 1)]
    assert watch.feed("gone") is None
    assert not any(feed.closed for feed in feeds if feed is not None), "all of them are looked at"
    for number, feed in enumerate(feeds):
        assert feed is not None
        feed.looked_at -= IN_USE_S + number
    feeds.append(watch.feed(f"run-{MOST_FEEDS + 1}"))
    assert [feed.closed for feed in feeds if feed is not None] == [False] * (MOST_FEEDS - 1) + [True] * 2 + [False]
    watch.close()
    assert not any(feed._thread.is_alive() for feed in feeds if feed is not None)


def test_of_runs_that_made_room_for_others_nothing_is_kept(
    written_run: Callable[[str, Script], Path], runs_dir: Path
) -> None:
    watch, stores = Watch(runs_dir), list[weakref.ref[Store]]()
    for number in range(MOST_FEEDS + 8):
        written_run(f"run-{number}", Script().start().steps(1))
        feed = watch.feed(f"run-{number}")
        assert feed is not None and feed.wait(10)
        feed.looked_at -= 1000.0  # nobody does any more
        stores.append(weakref.ref(feed.store))
    del feed
    gc.collect()
    assert [store() is not None for store in stores] == [False] * 8 + [True] * MOST_FEEDS
    watch.close()


def test_a_page_whose_feed_has_ended_is_drawn_anew(
    watching: Callable[..., Feed], monkeypatch: pytest.MonkeyPatch
) -> None:
    again: list[bool] = []
    monkeypatch.setattr("app.widgets.st.rerun", lambda: again.append(True))
    monkeypatch.setattr("app.widgets.form_state", lambda _feed: None)  # what Control asks for is not the matter here
    feed = watching(Journal(cycled(1).rows))
    now_line.__wrapped__(feed)  # type: ignore[attr-defined]  # as Streamlit calls it each second
    assert not again
    feed.close()
    now_line.__wrapped__(feed)  # type: ignore[attr-defined]
    assert again


def test_a_socket_whose_feed_has_ended_is_closed(watching: Callable[..., Feed]) -> None:
    feed, asked, socket = watching(Journal(cycled(1).rows)), _Asked(), Socket()
    feed.close()
    asyncio.run(asyncio.wait_for(_push(socket, Hall(feed, PAGES["live"], (), ()), asked), 5))  # type: ignore[arg-type]
    assert socket.closed == [1012] and asked.over


def test_listeners_are_told_of_rows_until_they_leave(watching: Callable[..., Feed]) -> None:
    rows, told, journal = cycled(2).rows, list[int](), Journal()
    feed = watching(journal)
    leave = feed.listen(lambda: told.append(feed.store.last_seq))

    def ended() -> None:
        raise RuntimeError("Event loop is closed")

    feed.listen(ended)
    journal.batches.append(rows[:5])
    until(lambda: told == [5], 10, "told once, when the rows are there")
    leave()
    journal.batches.append(rows[5:9])
    until(lambda: feed.store.last_seq == 9, 10, "the rest")
    assert told == [5] and feed.connection.error is None
