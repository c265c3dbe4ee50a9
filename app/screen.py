"""One live page's content at one moment, as messages for one browser. Knows no socket and no Streamlit."""

import math
import time
from dataclasses import replace
from typing import Literal

import msgspec

from app.feed import Connection
from app.figures import strip
from app.figures.axis import Axis
from app.figures.lifecycle import Binds
from app.figures.spec import Json
from app.replay import Replay, Source, Wish
from app.screens.page import Lists, LivePage, Moment
from app.views.alerts import critical_news
from app.views.series import Look, Window
from app.views.strip import strip as strip_view
from app.wire import Sent
from trainer_core.telemetry.rundir import RunStatus

NOT_READ = RunStatus("waiting", "nothing of this run has been read yet")

SO_FAR = "the newest rows only; reading the rest"
"""Beside each chart while only the newest rows of a long run have been read."""
TABLES_S = 1.0


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a browser may ask for; anything else closes its socket."""

    last: int | None = None
    """Show this many steps and follow the newest one."""
    span: tuple[float, float] | None = None
    """Show these steps and stay there."""
    log: bool = False
    log_x: bool = False
    smooth: float = 0.0
    x: Literal["step", "relative", "wall"] = "step"
    """What the charts' shared axis is; ``span`` is in its units."""
    zone: int = 0
    """Minutes that the reader's clock is ahead of UTC."""
    visible: tuple[str, ...] | None = None
    """Figures on the screen; None: all of the page."""
    replay: Wish | None = None
    """Show the run again as it was recorded; None: as it is."""
    drawn: int = 0
    """Number of the last drawing message that is on the screen."""

    def __post_init__(self) -> None:
        if self.last is not None and not 1 <= self.last <= 10_000_000:
            raise ValueError(f"last = {self.last}: must be from 1 to 10000000")
        if self.span is not None and not -1e9 <= self.span[0] < self.span[1] <= 1e14:
            raise ValueError(f"span = {self.span}: must rise and lie between -1e9 and 1e14")
        if not 0.0 <= self.smooth <= 0.99:
            raise ValueError(f"smooth = {self.smooth}: must be from 0 to 0.99")
        if not -1000 <= self.zone <= 1000:
            raise ValueError(f"zone = {self.zone}: must be minutes from -1000 to 1000")

    @property
    def look(self) -> Look:
        """How the figures are to be drawn."""
        return Look(Window(self.last, self.span), self.log, self.smooth, self.x, self.log_x and self.x == "step")


def check(ask: Ask, page: LivePage) -> None:
    """Raise ValueError when a browser asks for figures that its page does not have."""
    unknown = set(ask.visible or ()) - set(page.figures)
    if unknown:
        raise ValueError(f"visible = {sorted(unknown)}: must be of {', '.join(page.figures)}")


class Screen:
    """What one browser sees of one run."""

    def __init__(
        self, feed: Source, page: LivePage, others: tuple[Source, ...] = (), first: tuple[str, ...] = ()
    ) -> None:
        self.feed = feed
        self.others = others
        self.first = first
        self.page = page
        self.sent = Sent()
        self.replay: Replay | None = None
        self._tables_at = -math.inf
        self._glanced: object = None
        self._drawn: object = None
        """What was known when the values, and the figures, were last worked out: the same again is not worked out."""

    def show(self, wish: Wish | None, clock: float) -> None:
        """Show the run as it is, or a replay of it. ``clock``: monotonic seconds. Raises JournalError."""
        if wish is None:
            self.close()
            return
        if self.replay is None:
            self.replay = Replay(self.feed)
        self.replay.tick(wish, clock)

    def close(self) -> None:
        """End the replay, if there is one."""
        if self.replay is not None:
            self.replay.close()
            self.replay = None

    def glance(self, now: float) -> list[Json]:
        """Bound values and lists; those of the page itself only when something has happened, tables once a second."""
        moment = self._moment(now)
        common = _common(moment) | self._replaying(moment)
        binds: Binds = {}
        lists: Lists = {}
        known = _known(moment)
        if known != self._glanced:
            self._glanced = known
            binds, lists = self.page.binds(moment), self.page.lists(moment)
        if not 0.0 <= now - self._tables_at < TABLES_S:
            self._tables_at = now
            slow_binds, slow_lists = self.page.tables(moment)
            binds, lists = {**binds, **slow_binds}, {**lists, **slow_lists}
        messages = [self.sent.binds_message({**common, **binds})]
        messages += [self.sent.list_message(name, items) for name, items in lists.items()]
        return [message for message in messages if message is not None]

    def drawings(self, ask: Ask, now: float) -> list[Json]:
        """The figures the browser can see, as far as they changed."""
        moment = self._moment(now)
        known = (_known(moment), msgspec.structs.replace(ask, drawn=0))
        if known == self._drawn:
            return []
        self._drawn = known
        axis = Axis(moment.snapshot, ask.look, ask.zone)
        look = axis.wanted()
        wanted = self.page.figures if ask.visible is None else ask.visible
        figures = [axis.placed(self.page.figures[name](moment, look)) for name in wanted]
        if not moment.connection.whole:
            said = [" · ".join(filter(None, (figure.caption, SO_FAR))) for figure in figures]
            figures = [replace(figure, caption=text) for figure, text in zip(figures, said, strict=True)]
        return [message for figure in figures if (message := self.sent.figure_message(figure)) is not None]

    def _moment(self, now: float) -> Moment:
        others = tuple(_moment(other, now) for other in self.others)
        if self.replay is not None:
            return _moment(self.replay, self.replay.clock, others, self.first)
        return _moment(self.feed, now, others, self.first)

    def _replaying(self, moment: Moment) -> Binds:
        """Where the replay stands; its bar shows it."""
        if self.replay is None:
            return {"replay.on": False, "replay.at": 0.0, "replay.said": ""}
        step = moment.snapshot.last.step if moment.snapshot.last else 0
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment.now)) if moment.now else ""
        return {"replay.on": True, "replay.at": round(self.replay.at, 4), "replay.said": f"step {step:,} · {when}"}


def _moment(source: Source, now: float, others: tuple[Moment, ...] = (), first: tuple[str, ...] = ()) -> Moment:
    status = source.status if source.status is not None else NOT_READ
    return Moment(source.snapshot(), status, source.connection, str(source.run_dir), now, others, first)


def _known(moment: Moment) -> tuple[object, ...]:
    """All that a page's own values and figures are made from; equal until something has happened."""
    status = moment.status
    return (moment.snapshot, status.state, status.because, moment.connection, *map(_known, moment.others))


def _common(moment: Moment) -> Binds:
    """What every page has: the strip, and how the watching is doing."""
    values: Binds = {"feed.error": moment.connection.error or ""}
    replayed = moment.status.state == "replay"
    values["feed.critical"] = "" if replayed else critical_news(moment.snapshot, moment.name, moment.now)
    values["feed.via"] = _via(moment.connection, replayed)
    return values | strip.binds(strip_view(moment.snapshot, moment.status, moment.run, moment.now))


def _via(connection: Connection, replayed: bool) -> str:
    """Where what is shown comes from."""
    if not connection.whole:
        return SO_FAR
    return "live" if connection.live else "replay" if replayed else "from the journal file"
