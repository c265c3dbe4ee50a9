"""Every live page on every kind of run: what its HTML names is filled, and what is filled is named."""

import json
import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.bench.ticks import Still
from app.board import SO_FAR, Board
from app.feed import Connection, Feed
from app.figures import loss
from app.figures.lifecycle import Binds
from app.figures.spec import Figure
from app.screen import Ask, Screen, check
from app.screens.page import LivePage, Moment
from app.screens.registry import PAGES
from app.store import Store
from app.views.series import Look
from tests.app.rows import Script, cycled
from tests.app.test_own_loops import own_loop
from tests.app.test_phases_page import full_cycle
from trainer_core.spec.records import RunState


def extreme() -> Script:
    """What a loop can measure while it falls apart: everything a float can be."""
    script = Script().start()
    for value in (1.0, 1e308, -1e308, math.nan, math.inf, -math.inf, 0.0, 5e-324) * 4:
        size = abs(value)
        script.steps(
            1, loss=value, loss_ema=value, learning_rate=size, grad_norm=size, grad_param_ratio=size,
            grad_variance=size, micro_grad_snr=size,
        )  # fmt: skip
    return script


def between_attempts() -> Script:
    """Rolled back, and not a step since."""
    script = full_cycle()
    script.roll_back(5)
    return script


KINDS: dict[str, Callable[[], Script]] = {
    "empty": Script,
    "started": lambda: Script().start(),
    "running": lambda: cycled(4),
    "measured": full_cycle,
    "undone": lambda: full_cycle(kept=False, measured=False),
    "own-loop": own_loop,
    "extreme": extreme,
    "between-attempts": between_attempts,
}


@pytest.fixture(params=sorted(KINDS))
def feed(request: pytest.FixtureRequest, written_run: Callable[[str, Script], Path]) -> Iterator[Feed]:
    script = KINDS[request.param]()
    script.say(RunState(script.step, "running", "steps are coming"))
    followed = Feed(written_run(f"run-{request.param}", script))
    assert followed.wait(10)
    yield followed
    followed.close()


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_fills_what_it_names_and_names_what_it_fills(feed: Feed, name: str) -> None:
    page = PAGES[name]
    html = page.html()
    screen = Screen(Board(feed, page))
    bound, filled = set(), set()
    for message in screen.glance(time.time()):
        bound |= set(message.get("set", {}))
        filled |= {message["name"]} if message["t"] == "list" else set()
    named = set(re.findall(r'data-(?:bind|on|scale|tone|flash|phase-of|which-of)="([^"]+)"', html))
    assert named <= bound, f"never filled: {named - bound}"
    own = {key for key in bound if not key.startswith(("strip.", "feed.", "replay."))}
    assert own <= named, f"filled but nowhere shown: {own - named}"
    assert set(re.findall(r'data-list="([^"]+)"', html)) == filled
    assert set(re.findall(r'data-figure="([^"]+)"', html)) == set(page.figures)
    drawn = screen.drawings(Ask(), time.time())
    assert [message["name"] for message in drawn] == list(page.figures)
    assert not [message["caption"] for message in drawn if "cannot be drawn" in message["caption"]]
    json.dumps(drawn, allow_nan=False)


def test_a_figure_that_cannot_be_drawn_says_so_and_harms_no_other() -> None:
    def broken(_moment: Moment, _look: Look) -> Figure:
        raise ZeroDivisionError("float division by zero")

    def whole(moment: Moment, look: Look) -> Figure:
        return loss.figure(loss.view(moment.snapshot, look))

    store = Store()
    store.append(Script().start().steps(5).rows)
    screen = Screen(Board(Still(store), LivePage("page", str, figures={"some_chart": broken, "loss": whole})))
    drawn = screen.drawings(Ask(), 1000.0)
    assert [(message["title"], message["caption"]) for message in drawn] == [
        ("Some chart", "cannot be drawn now (ZeroDivisionError: float division by zero)"),
        ("Loss", "measured 5 points"),
    ]


def test_a_figure_that_a_page_does_not_have_is_refused() -> None:
    check(Ask(visible=("loss",)), PAGES["live"])
    with pytest.raises(ValueError, match=r"visible = \['nothing'\]: must be of loss"):
        check(Ask(visible=("nothing",)), PAGES["live"])


def test_while_only_the_newest_rows_are_known_every_chart_says_so() -> None:
    store = Store()
    store.append(Script().start().steps(5).rows)
    still = Still(store)
    still.connection = Connection(whole=False)
    screen = Screen(Board(still, PAGES["live"]))
    assert all(figure["caption"].endswith(SO_FAR) for figure in screen.drawings(Ask(), 1000.0))
    still.connection = Connection()
    again = {figure["name"]: figure for figure in screen.drawings(Ask(), 1001.0)}
    assert again["loss"]["caption"] == "measured 5 points"


def test_nothing_is_worked_out_again_until_something_happens() -> None:
    asked: list[str] = []

    def binds(_moment: Moment) -> Binds:
        asked.append("binds")
        return {"key": len(asked)}

    def figure(moment: Moment, look: Look) -> Figure:
        asked.append("figure")
        return loss.figure(loss.view(moment.snapshot, look))

    script, store = Script().start().steps(5), Store()
    store.append(script.rows)
    screen = Screen(Board(Still(store), LivePage("page", str, binds, figures={"loss": figure})))
    for drawn in range(3):
        screen.glance(1000.0 + drawn)
        screen.drawings(Ask(drawn=drawn), 1000.0)
    assert asked == ["binds", "figure"]
    screen.drawings(Ask(last=2, drawn=4), 1000.0)
    assert asked.pop() == "figure", "the reader wants something else"
    store.append(script.steps(1).rows)
    assert screen.glance(1004.0) and screen.drawings(Ask(last=2, drawn=4), 1000.0)
    assert asked == ["binds", "figure", "binds", "figure"]
