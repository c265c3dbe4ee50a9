"""All that the Phases page shows of a snapshot, computed once for it however many readers and glances. Pure."""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

from app.store import Snapshot
from app.views.lifecycle import Lifecycle, lifecycle
from app.views.phases_correct import Correct, correct
from app.views.phases_full import Full, full
from app.views.phases_machine import Machine, machine
from app.views.phases_predict import Predict, predict
from app.views.phases_trust import Trust, trust
from app.views.phases_warmup import Warmup, warmup
from app.views.settings import present_config
from trainer_core.spec.config import Config
from trainer_core.spec.phases import Phase


@dataclass(frozen=True)
class Phases:
    """The page's content, but for the sentence at its head, which also depends on the process."""

    config: Config | None
    machine: Machine
    life: Lifecycle
    warmup: Warmup
    full: Full
    predict: Predict
    correct: Correct
    trust: Trust


_KNOWN: WeakKeyDictionary[Snapshot, Phases] = WeakKeyDictionary()
"""A snapshot never changes; this goes when it goes."""


def phases(snapshot: Snapshot) -> Phases:
    """The content for a snapshot."""
    found = _KNOWN.get(snapshot)
    if found is None:
        found = _KNOWN[snapshot] = _computed(snapshot)
    return found


def _computed(snapshot: Snapshot) -> Phases:
    config = present_config(snapshot)
    found = machine(snapshot, config)
    return Phases(
        config=config,
        machine=found,
        life=lifecycle(snapshot),
        warmup=warmup(snapshot, config),
        full=full(snapshot),
        predict=predict(snapshot, found.standings[Phase.PREDICT]),
        correct=correct(snapshot, config),
        trust=trust(snapshot),
    )
