"""What one browser asked for and has been sent, as messages. Knows no socket and no Streamlit."""

from typing import Literal

import msgspec

from app.board import SAME_DRAWING_S, Board, Drawing
from app.figures.spec import Figure
from app.replay import Replay, Wish
from app.screens.page import LivePage
from app.views.series import Look, Window
from app.wire import Glance, Message


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
    """What one browser sees: which run or replay, and what it has been sent of it."""

    def __init__(self, board: Board) -> None:
        self.replay: Replay | None = None
        self._live = self._board = board
        self._glance = Glance()
        self._figures: dict[str, Figure] = {}
        self._drawing: Drawing | None = None
        self._visible: tuple[str, ...] | None = None

    def show(self, wish: Wish | None, clock: float) -> None:
        """Show the run as it is, or a replay of it. ``clock``: monotonic seconds. Raises JournalError."""
        if wish is None:
            self.close()
            return
        if self.replay is None:
            self.replay = Replay(self._live.source)
            self._board = Board(self.replay, self._live.page, self._live.others, self._live.first)
        self.replay.tick(wish, clock)

    def close(self) -> None:
        """End the replay, if there is one."""
        if self.replay is not None:
            self.replay.close()
            self.replay, self._board = None, self._live

    def glance(self, now: float) -> list[Message]:
        """What changed among bound values and lists since the last call."""
        old, self._glance = self._glance, self._board.glance(now, self._glance)
        return self._board.told(old, self._glance)

    def drawings(self, ask: Ask, now: float) -> list[Message]:
        """The figures the browser can see, as far as they changed."""
        drawing = self._board.drawing(ask.look, ask.zone, now, self._drawing)
        if drawing is self._drawing and ask.visible == self._visible:
            return []
        self._drawing, self._visible = drawing, ask.visible
        messages = []
        for name in dict.fromkeys(self._live.page.figures if ask.visible is None else ask.visible):
            self._figures[name], message = drawing.change(name, self._figures.get(name))
            messages += [message] if message is not None else []
        return messages

    def behind(self, now: float) -> float:
        """Seconds since what was drawn last was made, where that was just before for another browser; otherwise 0."""
        age = now - self._drawing.at if self._drawing is not None else 0.0
        return age if 0.0 < age < SAME_DRAWING_S else 0.0
