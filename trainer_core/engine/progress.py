"""The progress guard: is a stretch of training with predictions worth what it costs? Knows no phases and no files.

A loss that falls on the probe batch is necessary, not sufficient: harm may come later, and looks cost something even
where all are refused. So the run is its own control. After so many kept predictions close to each other a stretch of
plain full steps follows, an eighth of what the predictions cost; each is judged by one paired test on a fresh batch,
from its first weights to its last:

    r = gain / cost (loss per forward pass; a full step costs three),   z = (r_with - r_without) / sqrt(se^2 + se^2)

z >= 1: predictions pay, and until a control reads z < -1 a lower confidence is enough for one (spec/guards.py).
z < -1: predictions pause for twice the control's steps, twice as long each time in a row. Controls come at
a constant pace, for what paid early in a run may do harm near its end, where only small steps settle. Trust hangs on
few of them, so they compare all samples of their batches, not those of probes only.
"""

import math
from typing import TYPE_CHECKING, Any

import msgspec
import torch

from trainer_core.learning.coarse import CoarseWeights
from trainer_core.learning.loss import Batch
from trainer_core.learning.paired import Paired
from trainer_core.spec.records import ProgressCompared

if TYPE_CHECKING:
    from trainer_core.engine.engine import Engine

FIRST_JUMPS, JUMPS = 16, 32
"""Kept predictions before a control: of predictions not known to pay, and of those that do."""
_THIN = 12.0
"""Forward passes per kept prediction above which a stretch is begun anew: it is mostly plain training."""
_CONTROL_SHARE = 1 / 8
_LEAST_CONTROL = 3
_MOST_PAUSE = 2000
_PAYING_Z, _HARM_Z = 1.0, -1.0
_STEP_COST = 3.0


class Rate(msgspec.Struct, frozen=True):
    """Progress of a stretch: loss per forward pass, and its standard error."""

    value: float
    error: float


def rate_of(test: Paired, cost: float) -> Rate:
    """Progress per cost of a stretch that a paired test compared end to end."""
    return Rate(test.gain / cost, test.standard_error / cost)


def compare(with_: Rate, without: Rate) -> float:
    """How many standard errors predictions progress faster (negative: slower) than plain steps do."""
    error = math.hypot(with_.error, without.error)
    z = (with_.value - without.value) / max(error, 1e-30)
    return max(-6.0, min(6.0, z)) if math.isfinite(z) else -6.0


class ProgressGuard:
    """One run's comparison. Memory: half a model, a coarse copy of the weights where the snapshot lives."""

    def __init__(self) -> None:
        self._anchor: CoarseWeights | None = None
        self._cost = 0.0
        self._jumps = 0
        self._with: Rate | None = None
        self._seconds = 0.0
        self._pause = 0
        self.paying = False
        """Whether the controls say that predictions pay."""
        self.quiet_until = 0
        """Batches before which no prediction is looked for: a control, or a pause."""

    def quiet(self, engine: "Engine") -> bool:
        """Whether looking for predictions has to wait."""
        return engine.batches < self.quiet_until

    def check(self, engine: "Engine", batch: Batch) -> None:
        """Between two predictions, on a batch that no weights have seen: begin, or judge what has been finished."""
        if not engine.lengths.adaptive or not engine.config.hybrid_trainer_config.progress_guard:
            return
        if self._anchor is None:
            return self._begin(engine)
        if self._with is not None:
            return self._judge(engine, batch, self._with)
        kept = engine.predictions_kept - self._jumps
        if kept >= (JUMPS if self.paying else FIRST_JUMPS):
            start, cost = engine.clock(), self._spent(engine)
            self._with = rate_of(self._test(engine, batch), cost)
            self._begin(engine)
            control = max(_LEAST_CONTROL, round(cost * _CONTROL_SHARE / _STEP_COST))
            self.quiet_until = engine.batches + control
            self._seconds = engine.clock() - start
        elif self._spent(engine) > _THIN * (kept + 1):
            self._begin(engine)

    def _judge(self, engine: "Engine", batch: Batch, with_: Rate) -> None:
        start, cost = engine.clock(), self._spent(engine)
        without = rate_of(self._test(engine, batch), cost)
        z = compare(with_, without)
        self.paying = z >= (_HARM_Z if self.paying else _PAYING_Z)
        if z < _HARM_Z:
            self._pause = min(_MOST_PAUSE, max(2 * self._pause, round(2 * cost / _STEP_COST)))
            self.quiet_until = engine.batches + self._pause
        else:
            self._pause = 0
        engine.record(
            ProgressCompared(
                step=engine.step_count,
                with_predictions=with_.value,
                without=without.value,
                z=z,
                paused_steps=self._pause,
                seconds=self._seconds + engine.clock() - start,
            )
        )
        self._with, self._anchor = None, None

    def _begin(self, engine: "Engine") -> None:
        host = engine.config.hybrid_trainer_config.snapshot_device == "cpu"
        where = torch.device("cpu") if host else engine.parameters.device
        self._anchor = CoarseWeights.of(engine.parameters, where)
        self._cost, self._jumps = self._total(engine), engine.predictions_kept

    def _test(self, engine: "Engine", batch: Batch) -> Paired:
        """The anchor's weights (before) against the present ones (after), which stay."""
        assert self._anchor is not None
        now_P = engine.parameters.keep(engine.work_P)
        known_N = engine.losses.of(batch)
        after_N = torch.cat([known_N, engine.measuring.rest(batch)])
        self._anchor.write(engine.parameters)
        before_N = torch.cat([engine.samples(batch), engine.measuring.rest(batch)])
        engine.parameters.write(now_P)
        engine.losses.keep(batch, known_N)
        return engine.compare(before_N, after_N)

    @staticmethod
    def _total(engine: "Engine") -> float:
        return engine.forwards + _STEP_COST * engine.backward_passes

    def _spent(self, engine: "Engine") -> float:
        return max(1.0, self._total(engine) - self._cost)

    def given_up(self, passes: int) -> None:
        """So many backward passes of steps that were given up are counted from now on: no cost of what is compared."""
        self._cost += _STEP_COST * passes

    def forget(self) -> None:
        """The weights were set by somebody else (a rollback): what was being compared is void."""
        self._anchor, self._with, self.quiet_until = None, None, 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "anchor": None if self._anchor is None else self._anchor.state_dict(),
            "cost": self._cost,
            "jumps": self._jumps,
            "seconds": self._seconds,
            "with": None if self._with is None else [self._with.value, self._with.error],
            "pause": self._pause,
            "paying": self.paying,
            "quiet_until": self.quiet_until,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        anchor = state["anchor"]
        self._anchor = None if anchor is None else CoarseWeights.from_state(anchor)
        self._cost, self._jumps, self._seconds = state["cost"], state["jumps"], state["seconds"]
        self._with = None if state["with"] is None else Rate(*state["with"])
        self._pause, self.quiet_until = state["pause"], state["quiet_until"]
        self.paying = state["paying"]
