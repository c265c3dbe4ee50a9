"""A run beside a plain baseline run of the same work: who had which loss, and at what cost. Knows no file, no torch.

A loss between two measurements is interpolated on a straight line; outside of them there is none. A loss is reached at
the first measurement at or below it. The baseline's seconds are without the trainer's own bookkeeping, as those of a
plain loop are; the run's are with all of it.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import msgspec

from trainer_core.spec.errors import UserError
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import Row, RunStarted, RunState
from trainer_core.telemetry.savings import Curve, Ledger, LedgerTally, Saved, saved

Points = Sequence[tuple[float, float]]
"""(x, loss), x rising."""


class Told(msgspec.Struct, frozen=True):
    """What a journal says of one run, as far as a comparison needs it."""

    name: str
    started: RunStarted | None
    state: str | None
    ledger: Ledger
    curve: Curve


def told(name: str, rows: Iterable[Row]) -> Told:
    """What ``rows``, in the order of ``seq``, say of the run called ``name``."""
    tally = LedgerTally()
    started: RunStarted | None = None
    state: str | None = None
    for row in rows:
        tally.take(row)
        match row.record:
            case RunStarted():
                started = row.record
            case RunState():
                state = row.record.state
            case _:
                pass
    return Told(name, started, state, tally.ledger(), tally.curve())


class Gap(msgspec.Struct, frozen=True):
    """Both losses at the same cost; ``gap`` is (run - baseline) / baseline, below zero where the run is better."""

    at: float
    run: float
    baseline: float
    gap: float


class Cost(msgspec.Struct, frozen=True):
    """What had been paid when a loss was reached."""

    steps: int
    backward_passes: int
    seconds: float


class EqualLoss(msgspec.Struct, frozen=True):
    """Cost until the baseline's final loss."""

    loss: float
    baseline: Cost
    run: Cost | None
    """None: the run never reached it."""
    backward_reduction: float | None
    """1 - the run's backward passes / the baseline's."""
    speedup: float | None
    """The baseline's seconds / the run's."""


class Comparison(msgspec.Struct, frozen=True):
    """Everything here was measured on both runs."""

    baseline: str
    measure: str
    """Which loss: "validation loss", or "training loss EMA" where either run has no two validations."""
    notes: tuple[str, ...]
    """What differs, though the two can be compared."""
    baseline_steps: int
    baseline_seconds: float
    run_final: float | None
    baseline_final: float | None
    at_equal_steps: Gap | None
    at_equal_backward_passes: Gap | None
    at_equal_seconds: Gap | None
    equal_loss: EqualLoss | None
    saved: Saved | None


def refused_because(run: RunStarted, told: Told) -> str | None:
    """Why ``told`` cannot be a baseline of ``run``, in one sentence; None when it can."""
    base = told.started
    if base is None:
        return f"{told.name} cannot be the baseline: its journal does not say what it trained"
    predicted = told.ledger.phases[Phase.PREDICT]
    if predicted.steps or predicted.predicted:
        taken = predicted.steps + predicted.predicted
        return (
            f"{told.name} cannot be the baseline: it predicted {taken} steps; make a plain one with "
            f"hybrid train {base.task} --plain"
        )
    differs = [f"{what} is {theirs} there and {ours} here" for what, theirs, ours in _must_agree(base, run)]
    return f"{told.name} cannot be the baseline: {'; '.join(differs)}" if differs else None


def _must_agree(base: RunStarted, run: RunStarted) -> list[tuple[str, object, object]]:
    pairs: list[tuple[str, object, object]] = [("the task", base.task, run.task)]
    for section, key in (("training", "batch_size"), ("dataset", "num_examples"), ("dataset", "domain")):
        pairs.append((f"{section}.{key}", _setting(base, section, key), _setting(run, section, key)))
    keys = {**base.config.get("model", {}), **run.config.get("model", {})}
    pairs += [(f"model.{key}", _setting(base, "model", key), _setting(run, "model", key)) for key in keys]
    pairs.append(("the number of parameters", base.parameters, run.parameters))
    if not any(a != b for _, a, b in pairs):
        pairs.append(("the model's layers", ", ".join(base.layers), ", ".join(run.layers)))
    return [pair for pair in pairs if pair[1] != pair[2]]


def notes_on(run: RunStarted, told: Told) -> tuple[str, ...]:
    """What a reader of the comparison must know."""
    base = told.started
    assert base is not None, "refused before"
    notes = []
    if not base.plain:
        notes.append("the baseline was not started with --plain, but it predicted nothing")
    if told.state != "finished":
        notes.append(f"the baseline has not finished (state: {told.state or 'unknown'})")
    for section in ("learning_rate", "learning_rate_schedule", "optimizer", "training"):
        for key in {**base.config.get(section, {}), **run.config.get(section, {})}:
            theirs, ours = _setting(base, section, key), _setting(run, section, key)
            if theirs != ours and key not in ("max_steps", "validate_every", "early_stopping_patience", "device"):
                notes.append(f"{section}.{key} differs: {theirs} there, {ours} here")
    here, there = _setting(run, "dataset", "folder"), _setting(base, "dataset", "folder")
    if here != there:
        notes.append(f"the data come from other folders ({there or 'the task'} there, {here or 'the task'} here)")
    if base.device != run.device:
        notes.append(f"the device differs ({base.device} there, {run.device} here): seconds cannot be compared")
    if base.versions != run.versions:
        notes.append(f"versions differ: {base.versions} there, {run.versions} here")
    return tuple(notes)


def _setting(started: RunStarted, section: str, key: str) -> object:
    return started.config.get(section, {}).get(key)


def compare(run: Told, base: Told) -> Comparison:
    """The comparison. Raises UserError with one sentence when the two cannot be compared."""
    if run.started is None:
        raise UserError(f"{run.name} cannot be compared: its journal does not say what it trained")
    why = refused_because(run.started, base)
    if why is not None:
        raise UserError(why)
    validated = min(len(run.curve.validations), len(base.curve.validations)) >= 2
    ours, theirs = _losses(run.curve, validated), _losses(base.curve, validated)
    steps, plain = len(base.curve.steps) and base.curve.steps[-1], _last(base.curve.plain)
    return Comparison(
        baseline=base.name,
        measure="validation loss" if validated else "training loss EMA",
        notes=notes_on(run.started, base),
        baseline_steps=steps,
        baseline_seconds=plain,
        run_final=ours[-1][1] if ours else None,
        baseline_final=theirs[-1][1] if theirs else None,
        at_equal_steps=_gap(ours, theirs, lambda i: run.curve.steps[i], lambda i: base.curve.steps[i]),
        at_equal_backward_passes=_gap(ours, theirs, lambda i: run.curve.backward[i], lambda i: base.curve.backward[i]),
        at_equal_seconds=_gap(ours, theirs, lambda i: run.curve.charged[i], lambda i: base.curve.plain[i]),
        equal_loss=_equal_loss(run.curve, ours, base.curve, theirs),
        saved=_saved(run, steps, plain),
    )


def _saved(run: Told, steps: int, plain: float) -> Saved | None:
    if not steps or run.ledger.charged_seconds <= 0:
        return None
    method = f"nominal steps x mean of the {steps} steps of the baseline"
    ledger = run.ledger
    return saved(
        "measured", method, plain / steps, ledger.nominal_steps, ledger.backward_passes, ledger.charged_seconds
    )


def _last(column: Sequence[float]) -> float:
    return column[-1] if len(column) else 0.0


def _losses(curve: Curve, validated: bool) -> list[tuple[int, float]]:
    """(index into the curve, finite loss) along the surviving path."""
    if validated:
        found = [(curve.index(step), loss) for step, loss in curve.validations]
    else:
        found = list(enumerate(curve.ema))
    return [(i, loss) for i, loss in found if i >= 0 and math.isfinite(loss)]


Axis = Callable[[int], float]


def _gap(ours: list[tuple[int, float]], theirs: list[tuple[int, float]], x: Axis, base_x: Axis) -> Gap | None:
    """Both losses at the largest x that both have."""
    mine, yours = [(x(i), loss) for i, loss in ours], [(base_x(i), loss) for i, loss in theirs]
    if not mine or not yours:
        return None
    at = min(mine[-1][0], yours[-1][0])
    run, baseline = loss_at(mine, at), loss_at(yours, at)
    if run is None or baseline is None or baseline == 0:
        return None
    return Gap(at, run, baseline, (run - baseline) / abs(baseline))


def loss_at(points: Points, x: float) -> float | None:
    """The loss at ``x``, interpolated between two measurements; None outside of them."""
    before: tuple[float, float] | None = None
    for here, loss in points:
        if here > x:
            if before is None or before[0] == x:
                break
            share = (x - before[0]) / (here - before[0])
            return before[1] + share * (loss - before[1])
        before = here, loss
    return before[1] if before is not None and before[0] == x else None


def _equal_loss(
    run: Curve, ours: list[tuple[int, float]], base: Curve, theirs: list[tuple[int, float]]
) -> EqualLoss | None:
    if not ours or not theirs:
        return None
    goal = theirs[-1][1]
    paid = _first(base, theirs, goal, base.plain)
    assert paid is not None, "the baseline reached its own final loss"
    took = _first(run, ours, goal, run.charged)
    if took is None:
        return EqualLoss(goal, paid, None, None, None)
    fewer = 1 - took.backward_passes / paid.backward_passes if paid.backward_passes else None
    return EqualLoss(goal, paid, took, fewer, paid.seconds / took.seconds if took.seconds > 0 else None)


def _first(curve: Curve, losses: list[tuple[int, float]], goal: float, seconds: Sequence[float]) -> Cost | None:
    """Cost at the first measurement at or below ``goal``."""
    for i, loss in losses:
        if loss <= goal:
            return Cost(curve.steps[i], curve.backward[i], seconds[i])
    return None
