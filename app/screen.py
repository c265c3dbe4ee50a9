"""The Live page's content at one moment, as messages for one browser. Knows no socket and no Streamlit."""

import msgspec

from app.feed import Feed
from app.figures import confidence, gradient, lifecycle, loss, strip
from app.figures.lifecycle import Binds
from app.figures.spec import Figure, Json
from app.store import Snapshot
from app.theme import ICON
from app.views.alerts import Alert, alerts
from app.views.happenings import Happening, happenings
from app.views.lifecycle import lifecycle as lifecycle_view
from app.views.series import Window
from app.views.settings import present_config
from app.views.strip import strip as strip_view
from app.wire import Sent
from trainer_core.telemetry.rundir import RunStatus

FIGURES = ("loss", "confidence", "gradient")
MOST_ALERTS = 30
NOT_READ = RunStatus("waiting", "nothing of this run has been read yet")


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a browser may ask for; anything else closes its socket."""

    last: int | None = None
    """Show this many steps and follow the newest one."""
    span: tuple[float, float] | None = None
    """Show these steps and stay there."""
    log: bool = False
    visible: tuple[str, ...] = FIGURES
    drawn: int = 0
    """Number of the last drawing message that is on the screen."""

    def __post_init__(self) -> None:
        if self.last is not None and not 1 <= self.last <= 10_000_000:
            raise ValueError(f"last = {self.last}: must be from 1 to 10000000")
        if self.span is not None and not -1e9 <= self.span[0] < self.span[1] <= 1e9:
            raise ValueError(f"span = {self.span}: must rise and stay within a thousand million")
        unknown = set(self.visible) - set(FIGURES)
        if unknown:
            raise ValueError(f"visible = {sorted(unknown)}: must be of {', '.join(FIGURES)}")


class Screen:
    """What one browser sees of one run."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.sent = Sent()

    def glance(self, now: float) -> list[Json]:
        """Strip, lifecycle and alerts: cheap, ten times a second."""
        snapshot = self.feed.snapshot()
        messages = [self.sent.binds_message(self._binds(snapshot, now))]
        found = alerts(snapshot)
        items = [_alert_item(alert) for alert in found[:MOST_ALERTS]]
        messages.append(self.sent.list_message("alerts", items))
        lately = [_happening_item(happening) for happening in happenings(snapshot)]
        messages.append(self.sent.list_message("happenings", lately))
        return [message for message in messages if message is not None]

    def drawings(self, ask: Ask) -> list[Json]:
        """The figures the browser can see, as far as they changed."""
        snapshot = self.feed.snapshot()
        drawn = [self.sent.figure_message(figure) for figure in _figures(snapshot, ask)]
        return [message for message in drawn if message is not None]

    def _binds(self, snapshot: Snapshot, now: float) -> Binds:
        status, connection = self.feed.status, self.feed.connection
        values: Binds = {"feed.error": connection.error or ""}
        values["feed.via"] = "live" if connection.live else "from the journal file"
        values |= lifecycle.binds(lifecycle_view(snapshot))
        seen = status if status is not None else NOT_READ
        values |= strip.binds(strip_view(snapshot, seen, str(self.feed.run_dir), now))
        return values


def _figures(snapshot: Snapshot, ask: Ask) -> list[Figure]:
    window = Window(ask.last, ask.span)
    config = present_config(snapshot)
    found = []
    if "loss" in ask.visible:
        found.append(loss.figure(loss.view(snapshot, window, ask.log)))
    if "confidence" in ask.visible:
        found.append(confidence.figure(confidence.view(snapshot, window, config)))
    if "gradient" in ask.visible:
        found.append(gradient.figure(gradient.view(snapshot, window, config)))
    return found


def _alert_item(alert: Alert) -> Json:
    return {
        "severity": alert.severity.name.lower(),
        "icon": ICON[alert.severity],
        "message": alert.message,
        "detail": alert.detail,
        "step": alert.step,
        "standing": alert.standing,
        "open": alert.resolved_step is None,
    }


def _happening_item(happening: Happening) -> Json:
    return {
        "severity": "muted",
        "icon": happening.icon,
        "message": happening.text,
        "detail": "",
        "step": happening.step,
        "standing": "",
        "open": False,
    }
