"""A replay shows what had been said by then, and nothing else: by playing, by jumping, forwards and back."""

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from app.board import Board
from app.feed import Feed
from app.replay import Replay, Wish
from app.screen import Ask, Screen
from app.screens.registry import PAGES
from app.store import Snapshot, Store
from tests.app.rows import Script, cycled
from trainer_core.spec.records import RunState

LONG = 60


def script() -> Script:
    said = cycled(LONG)
    said.roll_back(said.step - 40)
    said.steps(100)
    said.say(RunState(said.step, "finished", "all steps done"))
    return said


@pytest.fixture
def feed(written_run: Callable[[str, Script], Path]) -> Iterator[Feed]:
    followed = Feed(written_run("run", script()))
    assert followed.wait(10)
    yield followed
    followed.close()


@pytest.fixture
def replay(feed: Feed) -> Iterator[Replay]:
    started = Replay(feed)
    yield started
    started.close()


def until(seq: int) -> Snapshot:
    store = Store()
    store.append([row for row in script().rows if row.seq <= seq])
    return store.snapshot()


def same(left: Snapshot, right: Snapshot) -> bool:
    assert left.last_seq == right.last_seq
    assert left.last == right.last and left.phase == right.phase and left.cuts == right.cuts
    assert left.tallies == right.tallies and left.edges == right.edges and left.verdicts == right.verdicts
    assert {kind: len(rows) for kind, rows in left.events.items()} == {
        kind: len(rows) for kind, rows in right.events.items()
    }
    for name in left.steps.columns:
        np.testing.assert_array_equal(left.steps[name], right.steps[name])
    for name in left.spans:
        np.testing.assert_array_equal(left.spans[name], right.spans[name])
    return True


def test_playing_shows_each_row_when_its_time_has_come(replay: Replay) -> None:
    replay.tick(Wish(speed=10, turn=1), now=0.0)
    assert replay.snapshot().steps.length <= 1
    replay.tick(Wish(speed=10, turn=1), now=1.0)
    assert replay.spent == pytest.approx(10.0)
    assert same(replay.snapshot(), until(replay.store.last_seq))
    assert 95 <= replay.snapshot().steps.length <= 101, "ten seconds at ten measured steps a second"
    replay.tick(Wish(speed=10, playing=False, turn=1), now=5.0)
    assert replay.spent == pytest.approx(10.0), "held"
    replay.tick(Wish(speed=50, turn=1), now=1000.0)
    assert replay.at == 1.0 and same(replay.snapshot(), until(10**9))
    assert replay.status.because == "recorded steps, at its end"


@pytest.mark.parametrize("at", [0.0, 0.2, 0.61, 0.95, 1.0])
def test_a_jump_shows_the_same_as_playing_there(replay: Replay, at: float) -> None:
    replay.tick(Wish(at=1.0, turn=1, playing=False), now=0.0)
    replay.tick(Wish(at=at, turn=2, playing=False), now=0.0)
    assert replay.at == pytest.approx(at)
    assert same(replay.snapshot(), until(replay.store.last_seq))


def test_a_replay_that_falls_behind_lets_its_clock_wait(feed: Feed) -> None:
    replay = Replay(feed, most_rows=50)
    replay.tick(Wish(turn=1), now=0.0)
    before = replay.store.last_seq
    replay.tick(Wish(speed=50, turn=1), now=60.0)
    assert replay.store.last_seq == before + 50
    assert replay.spent < 6.0
    replay.close()


@pytest.mark.parametrize(("field", "value"), [("speed", 3), ("at", 1.5), ("at", -0.1)])
def test_a_wish_that_cannot_be_is_refused(field: str, value: object) -> None:
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.json.decode(msgspec.json.encode({field: value}), type=Wish)


def test_every_page_draws_a_replay_and_the_run_again_after_it(feed: Feed) -> None:
    for page in PAGES.values():
        screen = Screen(Board(feed, page))
        screen.show(Wish(at=0.3, turn=1, playing=False), 0.0)
        (binds,) = [m["set"] for m in screen.glance(0.0) if m["t"] == "bind"]
        assert binds["strip.state"] == "replay" and binds["replay.on"] is True
        assert len(screen.drawings(Ask(), 0.0)) == len(page.figures)
        screen.show(None, 0.0)
        (binds,) = [m["set"] for m in screen.glance(0.0) if m["t"] == "bind"]
        assert binds["strip.state"] == "finished" and binds["replay.on"] is False
