"""The four phases of hybrid predictive training and what one step of each may do. Knows no thresholds."""

from enum import StrEnum

import msgspec


class Phase(StrEnum):
    """Where training is (methodology, "Training Phases")."""

    WARMUP = "WARMUP"
    FULL = "FULL"
    PREDICT = "PREDICT"
    CORRECT = "CORRECT"

    @property
    def letter(self) -> str:
        """The badge shown beside the colour, so colour is never the only signal."""
        return self.value[0]


class Traits(msgspec.Struct, frozen=True):
    """What one step of a phase does. The engine asserts these; the docs and the dashboard print them."""

    backward: bool
    """Whether a backward pass runs."""
    mover: str
    """Who moves the weights: "optimizer", "predictor" or "correction + optimizer"."""
    trains_predictor: bool
    """Whether the predictor observes this step."""
    compute: str
    """The word of the document's quick reference table."""
    typical_steps: tuple[int, int]
    """The document's usual duration in steps."""
    purpose: str


TRAITS: dict[Phase, Traits] = {
    Phase.WARMUP: Traits(
        True,
        "optimizer",
        True,
        "Full",
        (100, 500),
        "Establish baseline training dynamics",
    ),
    Phase.FULL: Traits(
        True,
        "optimizer",
        True,
        "Full",
        (20, 50),
        "Compute true gradients and train the predictor",
    ),
    Phase.PREDICT: Traits(False, "predictor", False, "Forward only", (20, 200), "Skip backward passes"),
    Phase.CORRECT: Traits(
        True,
        "correction + optimizer",
        True,
        "Validation",
        (5, 20),
        "Apply residual corrections and validate them",
    ),
}
