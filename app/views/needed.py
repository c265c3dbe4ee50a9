"""How sure of itself a prediction has to be now. Pure."""

from app.store import Snapshot
from trainer_core.spec.config import Config
from trainer_core.spec.guards import confidence_needed
from trainer_core.spec.records import PredictionProbed
from trainer_core.spec.signals import Signals


def paying(snapshot: Snapshot) -> bool:
    """Whether the run's newest look counted on predictions that pay, by the word of the progress guard's control."""
    look = snapshot.latest(PredictionProbed)
    return look is not None and look.paying


def needed(snapshot: Snapshot, config: Config) -> float:
    """The confidence that a prediction has to be above now."""
    return confidence_needed(Signals(paying=paying(snapshot)), config)


def lowered(snapshot: Snapshot, config: Config | None) -> str:
    """Says that less than the threshold is enough, where it is."""
    if config is None or not paying(snapshot):
        return ""
    return f"above {needed(snapshot, config):.2f} is enough now: the run's control found that predictions pay"
