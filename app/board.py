"""What a live page shows of one run, worked out once however many browsers look. Knows no socket and no Streamlit."""

import logging
import math
import threading
import time
from dataclasses import replace

from app.figures import strip
from app.figures.axis import Axis
from app.figures.lifecycle import Binds
from app.figures.spec import Figure, layout
from app.replay import Replay, Source
from app.screens.page import LivePage, Moment
from app.views.alerts import critical_news
from app.views.series import Look
from app.views.strip import strip as strip_view
from app.wire import Glance, Message, figure_change, glance_changes
from trainer_core.telemetry.rundir import RunStatus

_log = logging.getLogger(__name__)

_broken: set[tuple[str, type]] = set()
"""Figures that could not be drawn, and why: the log has each once."""

NOT_READ = RunStatus("waiting", "nothing of this run has been read yet")
SO_FAR = "the newest rows only; reading the rest"
"""Beside each chart while only the newest rows of a long run have been read."""
TABLES_S = 1.0
SAME_GLANCE_S, SAME_DRAWING_S = 0.03, 0.2
"""So long what was worked out for one browser is good enough for another that has not seen it yet."""
MOST_DRAWINGS = 8


class Board:
    """One page of one run (or of a replay of it) at the moments at which somebody looks.

    ``glance`` and ``told`` are for one thread at a time; ``drawing`` and what it gives are for any.
    """

    def __init__(
        self, source: Source, page: LivePage, others: tuple[Source, ...] = (), first: tuple[str, ...] = ()
    ) -> None:
        self.source = source
        self.page = page
        self.others = others
        self.first = first
        self._known: object = None
        """What was known when the page's own values were last worked out: the same again is not worked out."""
        self._own = Glance()
        self._tables = Glance()
        self._tables_at = -math.inf
        self._glance: Glance | None = None
        self._glanced_at = -math.inf
        self._told: tuple[Glance, Glance, list[Message]] | None = None
        self._drawings: dict[object, Drawing] = {}
        self._lock = threading.Lock()

    def of_replay(self, replay: Replay) -> "Board":
        """The same page of a replay."""
        return Board(replay, self.page, self.others, self.first)

    def glance(self, now: float, seen: Glance | None = None) -> Glance:
        """Bound values and lists at ``now`` (Unix seconds): for one that has ``seen`` an earlier glance, a newer one.

        The page's own are worked out only when something has happened, tables once a second.
        """
        moment = self._moment(now)
        known = _known(moment)
        held, same = self._glance, known == self._known
        if held is not None and held is not seen and same and 0.0 <= now - self._glanced_at < SAME_GLANCE_S:
            return held
        if not same:
            self._own = Glance(self.page.binds(moment), self.page.lists(moment))
            self._known = known
        if not 0.0 <= now - self._tables_at < TABLES_S:
            self._tables_at = now
            self._tables = Glance(*self.page.tables(moment))
        own, tables = self._own, self._tables
        binds = {**_common(moment), **_replaying(self.source, moment), **own.binds, **tables.binds}
        self._glance, self._glanced_at = Glance(binds, {**own.lists, **tables.lists}), now
        return self._glance

    def told(self, old: Glance, new: Glance) -> list[Message]:
        """What is sent to one that has seen ``old`` and is to see ``new``."""
        if self._told is None or self._told[0] is not old or self._told[1] is not new:
            self._told = (old, new, glance_changes(old, new))
        return self._told[2]

    def drawing(self, look: Look, zone: int, now: float, seen: "Drawing | None" = None) -> "Drawing":
        """The figures at ``now`` as a reader ``zone`` minutes ahead of UTC wants them.

        What was made before while nothing has happened since; and for one that has ``seen`` another, what was made for
        somebody else just now.
        """
        with self._lock:
            moment = self._moment(now)
            known = _known(moment)
            held = self._drawings.pop((look, zone), None)
            shared = held is not None and held is not seen and 0.0 <= now - held.at < SAME_DRAWING_S
            if held is None or not (shared or held.known == known):
                held = Drawing(self.page, moment, known, now, Axis(moment.snapshot, look, zone))
            self._drawings[look, zone] = held
            while len(self._drawings) > MOST_DRAWINGS:
                del self._drawings[next(iter(self._drawings))]
            return held

    def _moment(self, now: float) -> Moment:
        others = tuple(_moment(other, now) for other in self.others)
        clock = self.source.clock if isinstance(self.source, Replay) else now
        return _moment(self.source, clock, others, self.first)


class Drawing:
    """The figures of a page at one moment on one axis, each made when somebody has it on the screen. For any thread."""

    def __init__(self, page: LivePage, moment: Moment, known: object, at: float, axis: Axis) -> None:
        self.known = known
        self.at = at
        """When it was asked for first (Unix seconds)."""
        self._page = page
        self._moment = moment
        self._axis = axis
        self._figures: dict[str, Figure] = {}
        self._told: dict[str, tuple[Figure | None, Message | None]] = {}
        self._lock = threading.Lock()

    def change(self, name: str, old: Figure | None) -> tuple[Figure, Message | None]:
        """A figure, and what is sent to one that has ``old`` of it; None: nothing."""
        with self._lock:
            figure = self._figures.get(name)
            if figure is None:
                figure = self._figures[name] = self._made(name)
            if name not in self._told or self._told[name][0] is not old:
                self._told[name] = (old, figure_change(old, figure))
            return figure, self._told[name][1]

    def _made(self, name: str) -> Figure:
        """One figure. What it cannot draw harms no other: it says so in its caption."""
        try:
            figure = self._axis.placed(self._page.figures[name](self._moment, self._axis.wanted()))
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            if (name, type(error)) not in _broken:
                _broken.add((name, type(error)))
                _log.warning("%s of %s cannot be drawn", name, self._moment.run, exc_info=True)
            said = f"cannot be drawn now ({type(error).__name__}: {error})"
            return Figure(name, name.replace("_", " ").capitalize(), said, [], layout(0.0, 1.0, {}), {}, steps=False)
        if self._moment.connection.whole:
            return figure
        return replace(figure, caption=" · ".join(filter(None, (figure.caption, SO_FAR))))


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
    values["feed.via"] = _via(moment, replayed)
    return values | strip.binds(strip_view(moment.snapshot, moment.status, moment.run, moment.now))


def _via(moment: Moment, replayed: bool) -> str:
    """Where what is shown comes from."""
    if not moment.connection.whole:
        return SO_FAR
    return "live" if moment.connection.live else "replay" if replayed else "from the journal file"


def _replaying(source: Source, moment: Moment) -> Binds:
    """Where the replay stands; its bar shows it."""
    if not isinstance(source, Replay):
        return {"replay.on": False, "replay.at": 0.0, "replay.said": ""}
    step = moment.snapshot.last.step if moment.snapshot.last else 0
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment.now)) if moment.now else ""
    return {"replay.on": True, "replay.at": round(source.at, 4), "replay.said": f"step {step:,} · {when}"}
