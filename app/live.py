"""The live component and its routes: one WebSocket a browser, plotly.js served once. Draws nothing itself."""

import asyncio
import contextlib
import gzip
import hashlib
import importlib.resources
import json
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import msgspec
import plotly
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.board import Board
from app.entrance import same_origin
from app.exports import Exports
from app.feed import Feed, Watch
from app.ranges import serve_range
from app.screen import Ask, Screen, check
from app.screens import blocks
from app.screens.page import LivePage
from app.screens.registry import PAGES
from app.theme import tokens
from app.views.runs import joined, parted
from app.wire import Message
from trainer_core.spec.errors import RunError

GLANCE_S, LEAST_S = 0.2, 0.03
"""Values are sent when something has happened, or after so long; but not more often than every LEAST_S."""
DRAW_S = 0.5
"""Shortest time between two drawings; a browser that is slow to draw gets fewer."""
DRAW_LATEST_S = 10.0
"""When a browser has not said for this long that it has drawn, send again."""
MOST_MESSAGE = 2000
MOST_CHOSEN = 24
MOST_COMPARED = 7
"""Runs beside the page's own; fewer than feeds are kept, so that no screen takes another's away."""
STATIC = Path(__file__).parent / "static"
SCRIPTS = sorted(STATIC.glob("*.js"))
MODULES = ("live", "bound", "chart", "lists", "press", "replay", "toasts", "view")
"""The script of a live page and those that it imports."""
PLOTLY = f"/live/asset/{plotly.__version__}/plotly.js"


def routes(watch: Watch) -> list[BaseRoute]:
    """The routes beside Streamlit's own."""

    halls: Halls = WeakValueDictionary()

    async def socket(websocket: WebSocket) -> None:
        await serve(websocket, watch, halls)

    async def ranges(request: Request) -> Response:
        return await serve_range(request, watch)

    return [
        WebSocketRoute("/live/ws", socket),
        Route("/live/range", ranges),
        Route("/live/export", Exports(watch).serve),
        Route("/live/asset/{version}/{name}", asset),
    ]


@cache
def assets() -> dict[str, tuple[bytes, str]]:
    """Every file served here, compressed once: path under /live/asset -> (gzip bytes, media type)."""
    plotly_js = importlib.resources.files(plotly).joinpath("package_data", "plotly.min.js").read_bytes()
    scripts = {f"{_version()}/{path.name}": path.read_bytes() for path in SCRIPTS}
    return {
        path: (gzip.compress(content), "text/javascript")
        for path, content in {**scripts, f"{plotly.__version__}/plotly.js": plotly_js}.items()
    }


def preloads() -> list[str]:
    """Values of a ``Link`` header for what every live page fetches first."""
    modules = (f"/live/asset/{_version()}/{name}.js" for name in MODULES)
    return [f"<{PLOTLY}>; rel=preload; as=script", *(f"<{path}>; rel=modulepreload" for path in modules)]


@cache
def _version() -> str:
    """Changes with any of the scripts, which name one another and so must be of one version."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in SCRIPTS)).hexdigest()[:12]


def component_data(run: str, page: LivePage, others: Sequence[str] = (), first: Sequence[str] = ()) -> dict[str, Any]:
    """What the live component is given by its page."""
    return {
        "run": run,
        "others": joined(others),
        "first": json.dumps(list(first)) if first else "",
        "page": page.name,
        "html": page.html(),
        "tokens": tokens(),
        "last": blocks.DEFAULT_RANGE,
        "plotly": PLOTLY,
    }


def component_source() -> tuple[str, str]:
    """The component's script, which only fetches the real one, and its style sheet."""
    url = f"/live/asset/{_version()}/live.js"
    script = (  # more than one line: Streamlit takes a single one for a path
        f"const module = import(new URL({json.dumps(url)}, location.origin).href);\n"
        "export default async (component) => (await module).default(component);"
    )
    return script, (STATIC / "live.css").read_text(encoding="utf-8")


async def asset(request: Request) -> Response:
    """Scripts, cached for ever under their versioned names."""
    found = assets().get(f"{request.path_params['version']}/{request.path_params['name']}")
    if found is None:
        return Response("no such asset", status_code=404)
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Content-Encoding": "gzip"}
    return Response(found[0], media_type=found[1], headers=headers)


class Hall:
    """The browsers at one page of one run: what they see is worked out once, and they are woken by one call."""

    def __init__(self, feed: Feed, page: LivePage, others: tuple[Feed, ...], first: tuple[str, ...]) -> None:
        self.feed = feed
        self.board = Board(feed, page, others, first)
        self._waiting: set[asyncio.Event] = set()

    @contextlib.contextmanager
    def joined(self, news: asyncio.Event) -> Iterator[None]:
        """``news`` is set whenever rows have come. In the event loop, as all who join."""
        if not self._waiting:
            loop = asyncio.get_running_loop()
            self._deaf = self.feed.listen(lambda: loop.call_soon_threadsafe(self._wake))
        self._waiting.add(news)
        try:
            yield
        finally:
            self._waiting.discard(news)
            if not self._waiting:
                self._deaf()

    def _wake(self) -> None:
        for news in self._waiting:
            news.set()


Halls = WeakValueDictionary[object, Hall]
"""Those that somebody is in, by run, page and what else it shows."""


async def serve(websocket: WebSocket, watch: Watch, halls: Halls) -> None:
    """One browser from the handshake to its end."""
    if not same_origin(websocket):
        await websocket.close(code=1008, reason="wrong origin")
        return
    await websocket.accept()
    name = websocket.query_params.get("run", "")
    feed = await asyncio.to_thread(watch.feed, name)
    if feed is None:
        await websocket.close(code=4404, reason=f"no run called {name[:80]}")
        return
    page = PAGES.get(websocket.query_params.get("page", "live"))
    if page is None:
        await websocket.close(code=4404, reason=f"no page of that name; there are {', '.join(PAGES)}")
        return
    names = [other for other in parted(websocket.query_params.get("with", "")) if other != name]
    found = [await asyncio.to_thread(watch.feed, other) for other in dict.fromkeys(names[:MOST_COMPARED])]
    first = chosen_metrics(websocket.query_params.get("first", ""))
    others = tuple(other for other in found if other is not None)
    for other in others:
        other.read_on()  # runs are compared as wholes: nothing of them is worth painting first
    which = (feed, page.name, others, first)
    hall = halls.get(which) or halls.setdefault(which, Hall(feed, page, others, first))
    asked = _Asked()
    with contextlib.suppress(WebSocketDisconnect), hall.joined(asked.news):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_listen(websocket, feed, page, asked))
            tasks.create_task(_push(websocket, hall, asked))


def chosen_metrics(text: str) -> tuple[str, ...]:
    """Names of the user's own metrics that a page asks to have first: a JSON list; nothing where it is none."""
    try:
        return tuple(msgspec.json.decode(text, type=list[str])[:MOST_CHOSEN]) if text else ()
    except msgspec.MsgspecError:
        return ()


class _Asked:
    """What the browser asked for last, and what it was sent last."""

    def __init__(self) -> None:
        self.ask = Ask()
        self.changed = False
        """Its wishes changed: draw at once."""
        self.sent = 0
        self.sent_at = 0.0
        self.over = False
        self.news = asyncio.Event()
        """Rows have come, or wishes."""


async def _listen(websocket: WebSocket, feed: Feed, page: LivePage, asked: _Asked) -> None:
    try:
        while True:
            text = await websocket.receive_text()
            if len(text) > MOST_MESSAGE:
                raise msgspec.ValidationError(f"message of {len(text)} characters; at most {MOST_MESSAGE}")
            ask = msgspec.json.decode(text, type=Ask)
            check(ask, page)
            asked.changed |= msgspec.structs.replace(ask, drawn=asked.ask.drawn) != asked.ask
            asked.ask = ask
            if ask.drawn:
                feed.read_on()
            if asked.changed:
                asked.news.set()
    except WebSocketDisconnect:
        asked.over = True
    except (msgspec.MsgspecError, KeyError, ValueError) as error:
        asked.over = True
        await websocket.close(code=1007, reason=str(error)[:100])


async def _push(websocket: WebSocket, hall: Hall, asked: _Asked) -> None:
    loop, screen = asyncio.get_running_loop(), Screen(hall.board)
    try:
        while not asked.over:
            if hall.feed.closed:  # the server had stood still for long: the browser comes back and is given another
                asked.over = True
                await websocket.close(code=1012, reason="the run is read anew")
                return
            try:
                asked.news.clear()
                begun = loop.time()
                await _push_once(websocket, hall.feed, screen, asked)
                at_last = loop.call_at(begun + GLANCE_S, asked.news.set)
                await asked.news.wait()
                at_last.cancel()
                if (early := begun + LEAST_S - loop.time()) > 0.0:
                    await asyncio.sleep(early)
            except (ArithmeticError, LookupError, TypeError, ValueError, RunError) as error:
                text = f"The dashboard cannot draw this run ({type(error).__name__}: {error}); trying again."
                await websocket.send_text(Message(t="trouble", text=text).text)
                screen.close()
                screen = Screen(hall.board)
                await asyncio.sleep(DRAW_LATEST_S)
    except (WebSocketDisconnect, RuntimeError):  # RuntimeError: starlette's word for sending after the close
        asked.over = True
    finally:
        screen.close()


async def _push_once(websocket: WebSocket, feed: Feed, screen: Screen, asked: _Asked) -> None:
    if asked.ask.replay is not None or screen.replay is not None:
        await asyncio.to_thread(screen.show, asked.ask.replay, time.monotonic())  # it reads the journal
    for message in screen.glance(time.time()):
        await websocket.send_text(message.text)
    if not feed.begun:
        return
    waited = time.monotonic() - asked.sent_at
    ready = asked.ask.drawn >= asked.sent and waited >= DRAW_S
    if not (asked.changed or ready or waited >= DRAW_LATEST_S):
        return
    asked.changed = False
    drawn = await asyncio.to_thread(_drawn, screen, asked.ask)
    if drawn:
        asked.sent += 1
        figures = ",".join(drawn)
        await websocket.send_text(f'{{"t":"draw","number":{asked.sent},"figures":[{figures}]}}')
    asked.sent_at = time.monotonic() - screen.behind(time.time())  # so that those who see the same draw together


def _drawn(screen: Screen, ask: Ask) -> list[str]:
    return [message.text for message in screen.drawings(ask, time.time())]
