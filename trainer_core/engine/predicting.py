"""What happens on the way between phases: snapshot, glide, correct, judge, undo. Decides by paired tests.

The transition table says when; this module says how.
"""

from typing import TYPE_CHECKING

import msgspec
import torch
from torch import Tensor

from trainer_core.engine.ahead import Arrival
from trainer_core.engine.measuring import LEAST
from trainer_core.engine.snapshot import Snapshot
from trainer_core.learning.loss import Batch
from trainer_core.learning.paired import Paired, pooled, pooled_gain
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import CorrectionApplied, PredictedStretch, PredictionEnded

if TYPE_CHECKING:
    from trainer_core.engine.engine import Engine
    from trainer_core.engine.flight import Flight

_CORRECTION_SPAN = 10
"""A correction is the mean residual of one step, applied for at most this many steps' worth."""
_CORRECTION_Z = 1.0
"""A correction must be this many standard errors better on its batch."""
_FAR_ABOVE, _AUDIT_EVERY = 2.0, 8
"""A prediction is kept without a second test, unless the loss then lies so many sigma above its average, or it is the
one in so many that is tested all the same: a test costs two forward passes, and to undo a good prediction on the word
of one noisy batch costs more than that (docs/log.md)."""
_HARM_Z, _AUDIT_Z = -1.0, -2.0
"""A prediction is undone when a second batch says it did harm: worse by more than one standard error. To undo whatever
is not better there as well throws away two of five good ones (docs/log.md). Nothing speaks against one that is merely
audited: it takes both batches together, worse by more than two."""


def depart(engine: "Engine", batch: Batch) -> None:
    """FULL -> PREDICT: keep the weights to come back to; the proposal becomes the flight."""
    assert engine.proposed is not None, "PREDICT needs a probed proposal"
    start = engine.clock()
    where = engine.config.hybrid_trainer_config.snapshot_device
    engine.flight, engine.proposed = engine.proposed, None
    engine.snapshot = Snapshot(engine.parameters, engine.model, where, engine.flight.departure_P)
    engine.flight.departure_P = None
    engine.flight.snapshot_seconds = engine.clock() - start
    engine.lengths.entered(engine.flight.horizon)
    engine.confidence.enter(engine.flight.confidence)
    engine.curve.forget_oscillation()
    engine.predictions_entered += 1


def glide(engine: "Engine") -> None:
    """Take the steps of PREDICT that need no forward pass: one move, one record, no invented measurements."""
    flight = engine.flight
    assert flight is not None, "PREDICT without a flight"
    left = flight.horizon - flight.taken
    steps = left if engine.lengths.adaptive else min(left, engine.config.hybrid_trainer_config.forward_every - 1)
    if steps < 1:
        return
    start = engine.clock()
    move(engine, flight, steps)
    ends = [flight.expect(k, 0.0) for k in (flight.taken + 1, flight.taken + steps)]
    first, last_norm = engine.step_count + 1, flight.proposal.norm_at(flight.taken + steps - 1)
    length = flight.proposal.length(flight.taken, flight.taken + steps)
    engine.advance(steps)
    flight.taken += steps
    engine.last = msgspec.structs.replace(engine.last, update_ratio=engine.update_ratio(last_norm), loss_deviation=None)
    engine.record(
        PredictedStretch(
            step=engine.step_count,
            first_step=first,
            last_step=engine.step_count,
            batch=engine.batches,
            cycle=engine.cycle,
            expected_loss=tuple(e for _, e, _ in ends),
            expected_low=tuple(e for e, _, _ in ends),
            expected_high=tuple(e for _, _, e in ends),
            update_norm=length,
            confidence=flight.confidence,
            seconds=engine.clock() - start,
            backward_passes=engine.backward_passes,
        )
    )


def move(engine: "Engine", flight: "Flight", steps: int) -> None:
    """The weights go so many steps along the path.

    Weights of 16 bits would round small steps away, one by one, which the probe took at once: they start from the
    departure each time.
    """
    start, end = flight.taken, flight.taken + steps
    if start > 0 and engine.parameters.narrow and engine.snapshot is not None:
        engine.parameters.write(engine.snapshot.weights_P.to(engine.parameters.device))
        start = 0
    flight.proposal.follow(engine.parameters, start, end)


def correct(engine: "Engine", batch: Batch) -> None:
    """PREDICT -> CORRECT: add what similar residuals imply, if a paired probe on ``batch`` says it helps."""
    start = engine.clock()
    p = engine.config.predictor_config
    selection = engine.residuals.select(engine.last_state, p.similarity_threshold, p.top_k)
    taken = engine.flight.taken if engine.flight is not None else 1
    gain: float | None = None
    applied, magnitude = False, None
    if not selection.weights:
        because = "no residuals yet" if not selection.history else f"none of {selection.history} states is similar"
    elif engine.lengths.adaptive and not engine.budget.correction_due():
        because = f"not tried: {engine.budget.vain} in a row did not help"
    else:
        correction_P = engine.residuals.correction(selection)
        assert correction_P is not None, "some were selected"
        correction_P.mul_(min(taken, _CORRECTION_SPAN))
        magnitude = float(torch.linalg.vector_norm(correction_P))
        weights_P = engine.parameters.keep(engine.work_P)
        before_N = _arrived(engine, batch)
        engine.parameters.add(correction_P)
        test = engine.compare(before_N, engine.samples(batch))
        gain, applied = test.gain, test.z > _CORRECTION_Z
        engine.budget.corrected(applied)
        because = f"paired z = {test.z:.2f}, {'above' if applied else 'not above'} {_CORRECTION_Z:g}"
        if not applied:
            engine.parameters.write(weights_P)
        elif engine.flight is not None:
            engine.flight.arrival = None
    engine.corrected = True
    engine.record(
        CorrectionApplied(
            step=engine.step_count,
            cycle=engine.cycle,
            history=selection.history,
            similar=selection.similar,
            weights=selection.weights,
            magnitude=magnitude,
            gain=gain,
            applied=applied,
            because=because,
            seconds=engine.clock() - start,
        )
    )


def _arrived(engine: "Engine", batch: Batch) -> Tensor:
    """Per-sample losses where the prediction ended; the probe has them when it was on this batch and ran its course."""
    arrival = _arrival(engine, batch)
    return engine.samples(batch) if arrival is None else arrival.losses_N


def _arrival(engine: "Engine", batch: Batch) -> Arrival | None:
    """What the probe found where the present weights are, on this batch."""
    flight = engine.flight
    arrival = None if flight is None or flight.taken != flight.horizon else flight.arrival
    return arrival if arrival is not None and arrival.batch is batch else None


def against_snapshot(engine: "Engine", batch: Batch) -> Paired:
    """Snapshot (before) and present weights (after) on the same batch; leaves the present weights in place."""
    assert engine.snapshot is not None, "nothing to compare with"
    now_P = engine.parameters.keep(engine.work_P)
    after_N = engine.losses.of(batch)
    engine.parameters.write(engine.snapshot.weights_P.to(engine.parameters.device))
    before_N = engine.samples(batch)
    engine.parameters.write(now_P)
    engine.losses.keep(batch, after_N)
    return engine.compare(before_N, after_N)


def judge(engine: "Engine", batch: Batch | None, because: str) -> None:
    """A prediction ends: undo it when the paired test on a batch of its own says that it did harm, else keep it.

    Without a batch (a command right after a resume) there is no test, and nothing that may need one is kept.
    """
    flight = engine.flight
    if flight is None or engine.snapshot is None:
        return
    start = engine.clock()
    if flight.settled:
        return _close(engine, True, f"{_words(flight.verdict)}; {because}", flight.verdict, start)
    if batch is None:
        return undo(engine, because)
    if _needs_no_test(engine, engine.last.loss_deviation):
        return _close(engine, True, f"{_words(None)}; {because}", None, start)
    test = against_snapshot(engine, batch)
    if test.void:  # its probe speaks for it, and nothing against it where it ran its course
        if flight.taken == flight.horizon:
            return _close(engine, True, f"not measured again: the batch has no label; {because}", None, start)
        return undo(engine, f"not measured again: the batch has no label; {because}")
    if _harmless(engine, test, engine.last.loss_deviation):
        _close(engine, True, f"{_words(test)}; {because}", test, start)
    else:
        undo(engine, f"{_words(test)}; {because}", test, start)


def settle_ahead(engine: "Engine", batch: Batch) -> None:
    """CORRECT begins: its verdict, where it can fall before a full step moves what the optimizer keeps.

    A single validating step on the batch of the probe is all that CORRECT then has. Either nothing speaks against the
    prediction, or it is tested on those samples of the batch that its probe left out. Where that left none, the
    verdict waits for the next batch, and the optimizer's state has to be copied (``ahead_of_optimizer``).
    """
    flight = engine.flight
    if flight is None or engine.snapshot is None or flight.settled or not engine.lengths.adaptive:
        return
    start, deviation = engine.clock(), engine.curve.deviation(flight.probe.after)
    if not _needs_no_test(engine, deviation):
        flight.verdict = _left_out(engine, batch)
        if flight.verdict is None:
            return
        if not _harmless(engine, flight.verdict, deviation):
            return undo(engine, _words(flight.verdict), flight.verdict, start)
    flight.settled = True
    if flight.snapshot_seconds is not None:
        flight.snapshot_seconds += engine.clock() - start


def _left_out(engine: "Engine", batch: Batch) -> Paired | None:
    """Snapshot against present weights, which stay, on the samples of ``batch`` that tests do not compare.

    None where those are too few, in any process, or have no labels.
    """
    assert engine.snapshot is not None, "nothing to compare with"
    enough = engine.measuring.left_out(batch) >= LEAST
    if not (enough if engine.ranks is None else engine.ranks.mean(float(enough)) == 1.0):
        return None
    arrival = _arrival(engine, batch)
    whole_N, kept = None if arrival is None else arrival.whole_N, engine.measuring.kept(batch)
    if whole_N is not None and whole_N.numel() < kept + LEAST:
        return None  # of the samples left out too few have a loss
    after_N = engine.measuring.rest(batch) if whole_N is None else whole_N[kept:]
    now_P = engine.parameters.keep(engine.work_P)
    engine.parameters.write(engine.snapshot.weights_P.to(engine.parameters.device))
    before_N = engine.measuring.rest(batch)
    engine.parameters.write(now_P)
    test = engine.compare(before_N, after_N)
    return None if test.void else test


def _words(test: Paired | None) -> str:
    if test is None:
        return "not measured again: nothing speaks against its probe"
    return f"loss {test.before:.4g} -> {test.after:.4g} on the same batch (z = {test.z:.2f})"


def _harmless(engine: "Engine", test: Paired, deviation: float | None) -> bool:
    """Whether a tested prediction is kept."""
    assert engine.flight is not None
    return test.z > _HARM_Z or (_unsuspected(engine, deviation) and pooled(engine.flight.probe, test)[1] > _AUDIT_Z)


def _needs_no_test(engine: "Engine", deviation: float | None) -> bool:
    """Whether a prediction is kept as it is: nothing speaks against it, and it is not the one to be audited."""
    return _unsuspected(engine, deviation) and engine.predictions_kept % _AUDIT_EVERY != 0


def _unsuspected(engine: "Engine", deviation: float | None) -> bool:
    """Whether nothing speaks against a prediction: it ran its course, to no loss far above the average.

    ``deviation``: of that loss, in sigma; None where there is none to compare with.
    """
    flight = engine.flight
    return (
        flight is not None
        and engine.lengths.adaptive
        and flight.taken == flight.horizon
        and (deviation is None or deviation < _FAR_ABOVE)
    )


def undo(engine: "Engine", because: str, test: Paired | None = None, start: float | None = None) -> None:
    """Back to the snapshot, bit for bit. ``start``: when the verdict began; None: now."""
    if engine.flight is None or engine.snapshot is None:
        return
    start = engine.clock() if start is None else start
    engine.snapshot.restore(engine.parameters, engine.model, engine.optimizer)
    _close(engine, False, because, test, start)


def abandon(engine: "Engine", because: str) -> None:
    """A rollback ends a prediction under way: its checkpoint, not the snapshot, is what training returns to."""
    if engine.flight is not None:
        _close(engine, False, because, None, engine.clock())


def _close(engine: "Engine", kept: bool, because: str, test: Paired | None, start: float) -> None:
    flight = engine.flight
    assert flight is not None
    better = pooled_gain(flight.probe, test) > 0 if test is not None else None if kept else False
    if better is not None:
        engine.confidence.resolved(flight.confidence, better)
        engine.recorder.calibration(every=8)
    if kept:
        engine.lengths.kept(engine.config)
        engine.budget.kept(flight.taken)
        engine.unaged += round(flight.taken * engine.config.hybrid_trainer_config.moment_aging)
        engine.predictions_kept += 1
    else:
        engine.lengths.undone(engine.config)
        engine.budget.undone()
        engine.predictions_undone += 1
    engine.record(
        PredictionEnded(
            step=engine.step_count,
            cycle=engine.cycle,
            kept=kept,
            steps=flight.taken,
            because=because,
            loss_before=test.before if test else None,
            loss_after=test.after if test else None,
            confidence=flight.confidence,
            mean_error=flight.mean_error,
            snapshot_seconds=flight.snapshot_seconds,
            seconds=engine.clock() - start,
            better=better,
            implied_rate=engine.implied_rate(flight),
        )
    )
    engine.flight = None
    engine.snapshot = None


def ahead_of_optimizer(engine: "Engine") -> None:
    """A step of CORRECT is about to move what the optimizer keeps: copy it, where the verdict is still to come."""
    flight, snapshot = engine.flight, engine.snapshot
    if flight is None or snapshot is None or engine.phase is not Phase.CORRECT or flight.settled:
        return
    start = engine.clock()
    snapshot.keep_optimizer(engine.optimizer)
    if flight.snapshot_seconds is not None:
        flight.snapshot_seconds += engine.clock() - start


def phase_entered(engine: "Engine", phase: Phase, batch: Batch | None) -> None:
    """What a phase needs at its beginning."""
    if phase is Phase.FULL:
        engine.cycle += 1
        engine.probe_at = engine.full_needed
    if phase is not Phase.CORRECT:
        return
    if engine.flight is not None:  # the probe of a correction and full steps need the memory that the path lies in
        engine.flight.proposal = engine.flight.proposal.followed()
    if batch is not None:
        correct(engine, batch)
        settle_ahead(engine, batch)
