"""One prediction from its probe to its verdict: the path, what the loss is expected to do, how far it has come."""

import math
from typing import Any

import torch
from torch import Tensor

from trainer_core.engine.ahead import Arrival
from trainer_core.learning.paired import Paired
from trainer_core.learning.predictors import Proposal

_QUANTILE = 1.28
_FLOOR = 0.005


class Flight:
    """A prediction under way.

    Expected loss after k of H steps: base * (1 + (after / before - 1) * k / H), with the probe's before and after and
    base the loss EMA when it was entered. Band: 1.28 sqrt(SE^2 + (0.005 L)^2 + sigma^2); sigma, the batch noise, only
    where a single batch is compared. A predictor that expects a curve q(k) of relative losses with deviations d(k)
    gives the line its shape: + base * (q(k) - 1 - (q(H) - 1) * k / H), so that the end stays what the probe measured;
    the band takes base * d(k) in.
    """

    def __init__(self, proposal: Proposal, horizon: int, probe: Paired, base: float, confidence: float) -> None:
        self.proposal = proposal
        self.horizon = horizon
        self.probe = probe
        self.base = base
        self.confidence = confidence
        self.window = 1
        """FULL steps before it was probed."""
        self.departure_P: Tensor | None = None
        """The weights it was probed from, which become the snapshot; not saved."""
        self.arrival: Arrival | None = None
        """What the probe measured at the horizon; not saved."""
        self.taken = 0
        """Steps moved so far."""
        self.settled = False
        """Whether it is known to be kept, and the optimizer's state was not copied for undoing it."""
        self.verdict: Paired | None = None
        """The test that settled it; None where it needed none."""
        self.errors: list[float] = []
        """Relative loss errors of the measured steps."""
        self.recent: list[tuple[float, float]] = []
        """(actual, expected) of the last 5 measured steps."""
        self.snapshot_seconds: float | None = None
        """What the snapshot took; not part of the state, because a resumed flight's was taken by another process."""

    def expect(self, step: int, sigma: float) -> tuple[float, float, float]:
        """(low, expected, high) loss after ``step`` steps."""
        ratio = self.probe.after / self.probe.before - 1.0 if self.probe.before > 0 else 0.0
        expected = self.base * (1.0 + ratio * step / self.horizon)
        path, doubt = self.proposal.loss_path, 0.0
        if path is not None:
            (here, doubt), (end, _) = path.at(step), path.at(self.horizon)
            expected += self.base * (here - 1.0 - (end - 1.0) * step / self.horizon)
        error = self.probe.standard_error if math.isfinite(self.probe.standard_error) else 0.0
        band = _QUANTILE * math.sqrt(error**2 + (_FLOOR * expected) ** 2 + sigma**2 + (self.base * doubt) ** 2)
        return expected - band, expected, expected + band

    def measured(self, actual: float, expected: float) -> float | None:
        """Note one measured loss; returns the relative error over the last 5, which batch noise moves less."""
        if not math.isfinite(actual):
            return None
        self.recent = [*self.recent[-4:], (actual, expected)]
        self.errors.append(abs(actual - expected) / max(abs(actual), 1e-12))
        mean_actual = sum(a for a, _ in self.recent)
        mean_expected = sum(e for _, e in self.recent)
        return abs(mean_actual - mean_expected) / max(abs(mean_actual), 1e-12)

    @property
    def mean_error(self) -> float | None:
        """Mean relative loss error of the measured steps; None when none was measured."""
        return sum(self.errors) / len(self.errors) if self.errors else None

    def state_dict(self) -> dict[str, Any]:
        return {
            "proposal": self.proposal.state_dict(),
            "horizon": self.horizon,
            "probe": _numbers(self.probe),
            "base": self.base,
            "confidence": self.confidence,
            "window": self.window,
            "taken": self.taken,
            "settled": self.settled,
            "verdict": None if self.verdict is None else _numbers(self.verdict),
            "errors": list(self.errors),
            "recent": [list(pair) for pair in self.recent],
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> "Flight":
        proposal = Proposal.from_state(state["proposal"], device)
        flight = cls(proposal, state["horizon"], Paired(*state["probe"]), state["base"], state["confidence"])
        flight.window = state["window"]
        flight.taken, flight.errors = state["taken"], list(state["errors"])
        flight.settled = state.get("settled", state.get("untested", False))  # as older checkpoints call it, if at all
        verdict = state.get("verdict")
        flight.verdict = None if verdict is None else Paired(*verdict)
        flight.recent = [(a, e) for a, e in state["recent"]]
        return flight


def _numbers(test: Paired) -> list[float]:
    return [test.before, test.after, test.gain, test.standard_error, test.z]
