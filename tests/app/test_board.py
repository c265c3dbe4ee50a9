"""What several browsers at one page share, and that each is sent what it lacks, whenever it came and however slow."""

import asyncio
import random
from typing import Any

import pytest

from app.bench.ticks import Still
from app.board import MOST_DRAWINGS, SAME_DRAWING_S, SAME_GLANCE_S, Board
from app.feed import Feed
from app.figures import loss
from app.figures.lifecycle import Binds
from app.figures.spec import Figure
from app.live import Hall
from app.screen import Ask, Screen
from app.screens.page import LivePage, Moment
from app.screens.registry import PAGES
from app.store import Store
from app.views.series import Look, Window
from app.wire import Message
from tests.app.rows import Script, cycled
from tests.app.test_figures import points

T0 = 1000.0


class Reader:
    """One browser: what its screen was sent, put together as the scripts do it."""

    def __init__(self, board: Board, ask: Ask) -> None:
        self.screen, self.ask = Screen(board), ask
        self.held: dict[str, Any] = {}

    def look(self, now: float, draw: bool = True) -> list[Message]:
        messages = self.screen.glance(now) + (self.screen.drawings(self.ask, now) if draw else [])
        for message in messages:
            self._take(message)
        return messages

    def _take(self, message: Message) -> None:
        match message:
            case {"t": "bind", "set": values}:
                self.held |= values
            case {"t": "list", "name": name, "items": items}:
                self.held[f"list {name}"] = items
            case {"t": "figure", "name": name, **changed}:
                for key, change in changed.pop("columns", {}).items():
                    column = self.held.setdefault(f"{name} {key}", {})
                    for axis, added in change["add"].items():
                        column[axis] = column.get(axis, [])[change["drop"] :][: change["keep"]] + points(added)
                    column["text"] = change.get("text")
                for key, value in changed.items():
                    whole, _, part = key.rpartition(".") if key.count(".") == 2 else (key, "", "")
                    held = self.held.get(f"{name} {whole}")
                    self.held[f"{name} {whole}"] = {**held, part: value} if part and held else value


class Counting:
    """A page that counts what is worked out for it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.page = LivePage("page", str, self.binds, figures={"loss": self.figure})

    def binds(self, moment: Moment) -> Binds:
        self.asked.append("binds")
        return {"rows": moment.snapshot.last_seq}

    def figure(self, moment: Moment, look: Look) -> Figure:
        self.asked.append("figure")
        return loss.figure(loss.view(moment.snapshot, look))


@pytest.mark.parametrize("page", ["live", "phases", "health"])
@pytest.mark.parametrize("seed", range(3))
def test_whoever_comes_late_or_is_slow_holds_in_the_end_what_a_newcomer_is_sent(page: str, seed: int) -> None:
    chance, script, store = random.Random(seed), cycled(2), Store()
    board = Board(Still(store), PAGES[page])
    asks = (Ask(last=300), Ask(last=300), Ask(last=300), Ask(smooth=0.5, visible=tuple(PAGES[page].figures)[1:]))
    store.append(script.rows)
    readers = [Reader(board, asks[0])]
    for round_ in range(20):
        if round_ == 12:
            script.roll_back(script.step - 40)
        script.steps(chance.randint(0, 9))
        store.append(script.rows)
        if len(readers) < len(asks) and round_ % 4 == 3:
            readers.append(Reader(board, asks[len(readers)]))
        for reader in readers:
            if chance.random() < 0.6:
                reader.look(T0 + round_ * 0.1 + chance.random() * 0.05, draw=chance.random() < 0.5)
    end = T0 + 100
    for reader in readers:
        reader.look(end)
    for reader, ask in zip(readers, asks, strict=True):
        newcomer = Reader(board, ask)
        newcomer.look(end)
        assert {key: reader.held[key] for key in newcomer.held} == newcomer.held


def test_what_several_see_is_worked_out_and_written_down_once() -> None:
    counting, script, store = Counting(), Script().start().steps(5), Store()
    store.append(script.rows)
    board = Board(Still(store), counting.page)
    one, other = Reader(board, Ask(last=100)), Reader(board, Ask(last=100))
    one.look(T0)
    other.look(T0 + 0.01)
    for moment in range(1, 4):
        store.append(script.steps(1).rows)
        first, second = one.look(T0 + moment), other.look(T0 + moment + 0.01)
        assert len(first) == 2 and all(left is right for left, right in zip(first, second, strict=True))
        assert first[0].text is second[0].text
    assert counting.asked == ["binds", "figure"] * 4


def test_rows_that_came_after_another_s_glance_are_seen_at_once() -> None:
    script, store = Script().start().steps(5), Store()
    store.append(script.rows)
    board = Board(Still(store), Counting().page)
    one, other = Reader(board, Ask()), Reader(board, Ask())
    one.look(T0)
    store.append(script.steps(1).rows)
    other.look(T0 + SAME_GLANCE_S / 2)
    assert one.held["rows"] == 6 and other.held["rows"] == 7


def test_nobody_is_given_the_glance_again_that_he_has_seen() -> None:
    script, store = Script().start().steps(5), Store()
    store.append(script.rows)
    board = Board(Still(store), Counting().page)
    first = board.glance(T0)
    assert board.glance(T0 + SAME_GLANCE_S / 2) is first, "good enough for another"
    second = board.glance(T0 + SAME_GLANCE_S / 2, first)
    assert second is not first and board.glance(T0 + SAME_GLANCE_S) is second


def test_who_missed_a_glance_is_sent_what_it_said() -> None:
    def binds(moment: Moment) -> Binds:
        return {"rows": moment.snapshot.last_seq, "many": moment.snapshot.last_seq > 6}

    script, store = Script().start().steps(5), Store()
    board = Board(Still(store), LivePage("page", str, binds))
    one, other = Reader(board, Ask()), Reader(board, Ask())
    store.append(script.rows)
    one.look(T0)
    other.look(T0)
    for moment in (1, 2):
        store.append(script.steps(1).rows)
        one.look(T0 + moment)
    other.look(T0 + 2)
    assert one.held == other.held and other.held["many"] is True


def test_tables_are_worked_out_once_a_second_also_when_nothing_happens() -> None:
    asked: list[float] = []

    def tables(moment: Moment) -> tuple[Binds, dict[str, Any]]:
        asked.append(moment.now)
        return {}, {}

    script, store = Script().start().steps(5), Store()
    store.append(script.rows)
    board = Board(Still(store), LivePage("page", str, tables=tables))
    for tenth in range(25):
        store.append(script.steps(1).rows if tenth % 2 else [])
        board.glance(T0 + tenth / 10)
    assert asked == [T0, T0 + 1.0, T0 + 2.0]


def test_a_drawing_is_shared_for_a_moment_and_nobody_is_given_his_own_again() -> None:
    counting, script, store = Counting(), Script().start().steps(5), Store()
    store.append(script.rows)
    board = Board(Still(store), counting.page)
    one, other, third = (Reader(board, Ask(last=100)) for _ in range(3))

    def newest(reader: Reader) -> int:
        return int(reader.held["loss measured"]["x"][-1])

    one.look(T0)
    store.append(script.steps(1).rows)
    soon, late = T0 + SAME_DRAWING_S / 2, T0 + SAME_DRAWING_S * 1.1
    other.look(soon)
    assert newest(other) == 5 and other.screen.behind(soon) == pytest.approx(SAME_DRAWING_S / 2)
    one.look(soon)
    assert newest(one) == 6 and one.screen.behind(soon) == 0.0
    third.look(late)
    assert newest(third) == 6 and counting.asked.count("figure") == 2
    store.append(script.steps(1).rows)
    third.look(soon + SAME_DRAWING_S)
    assert newest(third) == 7


def test_another_look_at_the_same_run_is_another_drawing() -> None:
    script, store = Script().start().steps(50), Store()
    store.append(script.rows)
    board = Board(Still(store), PAGES["live"])
    near, far = Reader(board, Ask(last=10)), Reader(board, Ask())
    near.look(T0)
    far.look(T0)
    assert (near.held["loss measured"]["x"][0], far.held["loss measured"]["x"][0]) == (40, 1)


def test_only_so_many_drawings_are_kept_and_those_that_were_looked_at_last() -> None:
    counting, store = Counting(), Store()
    store.append(Script().start().steps(50).rows)
    board = Board(Still(store), counting.page)
    looks = [Look(Window(last=last)) for last in range(1, MOST_DRAWINGS + 2)]
    drawn = [board.drawing(look, 0, T0) for look in looks]
    assert board.drawing(looks[-1], 0, T0) is drawn[-1] and board.drawing(looks[1], 0, T0) is drawn[1]
    assert board.drawing(looks[0], 0, T0) is not drawn[0]


@pytest.mark.parametrize("error", [ZeroDivisionError("none"), KeyError("phase"), TypeError("odd"), ValueError("nan")])
def test_a_figure_that_cannot_be_drawn_says_so_and_the_log_has_it_once(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_moment: Moment, _look: Look) -> Figure:
        raise error

    store, name = Store(), f"broken_{type(error).__name__}"
    store.append(Script().start().steps(5).rows)
    board = Board(Still(store), LivePage("page", str, figures={name: broken}))
    for last in (1, 2):
        figure, _ = board.drawing(Look(Window(last=last)), 0, T0).change(name, None)
        assert figure.caption.startswith(f"cannot be drawn now ({type(error).__name__}: ")
    assert [record.getMessage() for record in caplog.records] == [f"{name} of bench cannot be drawn"]


def test_what_happens_in_a_run_beside_it_is_something_that_happened() -> None:
    counting, beside, store = Counting(), Store(), Store()
    script = Script().start().steps(5)
    for each in (store, beside):
        each.append(script.rows)
    board = Board(Still(store), counting.page, (Still(beside),))
    board.glance(T0)
    board.glance(T0 + 1)
    beside.append(script.steps(1).rows)
    board.glance(T0 + 2)
    assert counting.asked == ["binds", "binds"]


class Heard(Feed):
    """A feed without a thread: it only knows who listens."""

    def __init__(self) -> None:
        self._listeners = {}

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def tell(self) -> None:
        self._tell()


def test_all_in_a_hall_are_woken_by_one_call_and_an_empty_one_is_deaf() -> None:
    async def visits() -> None:
        feed = Heard()
        hall = Hall(feed, PAGES["live"], (), ())
        one, other = asyncio.Event(), asyncio.Event()
        with hall.joined(one):
            with hall.joined(other):
                assert feed.listeners == 1
                await asyncio.to_thread(feed.tell)
                await asyncio.wait_for(asyncio.gather(one.wait(), other.wait()), 10)
                one.clear()
                other.clear()
            feed.tell()
            await asyncio.wait_for(one.wait(), 10)
            assert not other.is_set() and feed.listeners == 1
        assert feed.listeners == 0
        with hall.joined(other):
            feed.tell()
            await asyncio.wait_for(other.wait(), 10)

    asyncio.run(visits())
