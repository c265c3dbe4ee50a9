"""What a live page is, and the moment of a run that it is drawn from. Knows no socket and no Streamlit."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from app.feed import Connection
from app.figures.lifecycle import Binds
from app.figures.spec import Figure, Json
from app.store import Snapshot
from app.views.compare import Compared, compared
from app.views.series import Look
from app.views.settings import present_config
from trainer_core.spec.config import Config
from trainer_core.telemetry.rundir import RunStatus

Lists = Mapping[str, list[Json]]
Builder = Callable[["Moment", Look], Figure]


@dataclass(frozen=True)
class Moment:
    """One run at one moment: everything a page may draw from."""

    snapshot: Snapshot
    status: RunStatus
    connection: Connection
    run: str
    """Its directory."""
    now: float
    """Unix seconds."""
    others: tuple["Moment", ...] = ()
    """Runs to compare it with."""
    first: tuple[str, ...] = ()
    """Metrics of the user's own that the reader wants to see first."""

    @cached_property
    def runs(self) -> list[Compared]:
        """This run and the others, to be compared."""
        return compared([(moment.name, moment.status.state, moment.snapshot) for moment in (self, *self.others)])

    @property
    def name(self) -> str:
        """The run's name."""
        return os.path.basename(self.run)

    @cached_property
    def config(self) -> Config | None:
        """The settings in force; None while the run has not said them."""
        return present_config(self.snapshot)


def no_binds(_moment: Moment) -> Binds:
    """A page without bound values of its own."""
    return {}


def no_lists(_moment: Moment) -> Lists:
    """A page without lists."""
    return {}


def no_tables(_moment: Moment) -> tuple[Binds, Lists]:
    """A page without tables."""
    return {}, {}


@dataclass(frozen=True)
class LivePage:
    """One page. ``html`` is drawn once (see ``blocks``); all that moves is named in it.

    While something happens ``binds`` and ``lists`` are asked up to thirty times a second, ``figures`` that are on the
    reader's screen once or twice, ``tables`` once. None may grow with the history or depend on ``Moment.now``.
    """

    name: str
    html: Callable[[], str]
    binds: Callable[[Moment], Binds] = no_binds
    lists: Callable[[Moment], Lists] = no_lists
    tables: Callable[[Moment], tuple[Binds, Lists]] = no_tables
    figures: Mapping[str, Builder] = field(default_factory=dict)
