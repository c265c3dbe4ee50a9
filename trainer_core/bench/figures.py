"""What follows from the results: costs to equal loss, speed-ups, goals met or missed. Pure; knows no torch.

A loss is reached where a straight line between two validations first crosses it. Speed-up to a loss = what the plain
arm had paid when it first reached it / what the other had paid. Every figure is per seed; means come last.
"""

import math
import statistics
from collections.abc import Callable, Sequence

import msgspec

from trainer_core.bench.plan import BASELINE, LOCKED, TUNED, hybrid_name
from trainer_core.bench.results import Arm, Point, Results, Run, TaskResult
from trainer_core.telemetry.comparison import loss_at

Axis = Callable[[Point], float]
CHECKPOINTS = (0.1, 0.25, 0.5, 1.0)
"""Shares of the budget, or of the baseline's backward passes, at which losses are shown."""
SURE = 0.85
LEVELS = 10
"""Losses at which a guard compares two arms: to the last one alone, converged arms wander by a third."""


def seconds(p: Point) -> float:
    return p.seconds


def passes(p: Point) -> float:
    return p.backward_passes


def cost(p: Point) -> float:
    return p.cost


def nominal(p: Point) -> float:
    return p.steps


class Seed(msgspec.Struct, frozen=True):
    """One arm and seed beside the plain arm of the same configuration. None: not reached, or not measured."""

    seed: int
    final_loss: float | None
    by_seconds: tuple[float | None, ...]
    """Losses at CHECKPOINTS of the budget."""
    by_passes: tuple[float | None, ...]
    """Losses at CHECKPOINTS of the baseline's backward passes."""
    passes_to_goal: float | None
    """Backward passes until the baseline's final loss."""
    fewer_passes: float | None
    """1 - those / the baseline's."""
    time_speedup: float | None
    cost_speedup: float | None
    gap_at_equal_steps: float | None
    """(loss - baseline's final loss) / it, at the baseline's nominal steps."""
    speedup_over_tuned: float | None
    """In time, to the tuned arm's final loss; below 1: the tuned arm reached this arm's final loss earlier."""
    kept: int
    undone: int
    failed: str | None


class ArmFigures(msgspec.Struct, frozen=True):
    """One arm."""

    name: str
    about: str
    seeds: tuple[Seed, ...]


class GuardFigures(msgspec.Struct, frozen=True):
    """Hybrid beside plain where prediction is not expected to pay; 1 is a draw."""

    name: str
    cost_ratios: tuple[float | None, ...]
    time_ratios: tuple[float | None, ...]
    pace_ratios: tuple[float | None, ...] = ()
    """Units of cost a second over the whole race, hybrid / plain: what bookkeeping takes, whatever it brings."""


class Calibration(msgspec.Struct, frozen=True):
    """Over all predictions of one predictor's same-configuration arm, all seeds."""

    predictor_arm: str
    predictions: int
    tested: int
    """Those with a verdict of their own: the rest was kept on the strength of the probe."""
    brier: float | None
    """Against "the loss fell", by both paired tests together."""
    sure: int
    """Entered at a confidence above 0.85."""
    sure_kept: float | None
    sure_better: float | None
    """Of those, the share whose loss fell; a prediction that did no harm beyond doubt is kept, too."""


class TaskFigures(msgspec.Struct, frozen=True):
    """One task."""

    task: str
    arms: tuple[ArmFigures, ...]
    guards: tuple[GuardFigures, ...]
    calibration: tuple[Calibration, ...]
    locked_time_ratio: float | None
    """Seconds a step of the locked arm / of the plain arm, mean over seeds; the overhead in the race itself."""


class Goal(msgspec.Struct, frozen=True):
    """One line of "how it is judged"."""

    figure: str
    goal: str
    measured: str
    met: bool | None
    """None: not measured."""


def task_figures(result: TaskResult) -> TaskFigures:
    """Every figure of one task."""
    by_name = {arm.name: arm for arm in result.arms}
    base, tuned = by_name[BASELINE], by_name[TUNED]
    arms = tuple(ArmFigures(a.name, a.about, _seeds(a, base, tuned, result.budget_seconds)) for a in result.arms)
    guards = []
    for guard in result.guards:
        pairs = list(zip(by_name[guard.hybrid].runs, by_name[guard.plain].runs, strict=True))
        ratios = [tuple(speed_beside(h.points, p.points, axis) for h, p in pairs) for axis in (cost, seconds)]
        paces = tuple(_faster(h.points, p.points) for h, p in pairs)
        guards.append(GuardFigures(guard.name, ratios[0], ratios[1], paces))
    same = [arm for arm in result.arms if "predictor_config.type" in arm.settings]
    return TaskFigures(
        result.task, arms, tuple(guards), tuple(calibration(a) for a in same), _pace(by_name[LOCKED], base)
    )


def _pace(locked: Arm, plain: Arm) -> float | None:
    ratios = []
    for ours, theirs in zip(locked.runs, plain.runs, strict=True):
        if ours.points and theirs.points and ours.points[-1].steps and theirs.points[-1].steps:
            a, b = ours.points[-1], theirs.points[-1]
            ratios.append((a.seconds / a.steps) / (b.seconds / b.steps))
    return mean(ratios)


def _faster(ours: Sequence[Point], theirs: Sequence[Point]) -> float | None:
    """Cost paid a second, over theirs."""
    if not ours or not theirs or not ours[-1].seconds or not theirs[-1].cost:
        return None
    return (ours[-1].cost / ours[-1].seconds) * (theirs[-1].seconds / theirs[-1].cost)


def _seeds(arm: Arm, base: Arm, tuned: Arm, budget: float) -> tuple[Seed, ...]:
    triples = zip(arm.runs, base.runs, tuned.runs, strict=True)
    return tuple(_seed(run, plain.points, best.points, budget) for run, plain, best in triples)


def _seed(run: Run, plain: Sequence[Point], tuned: Sequence[Point], budget: float) -> Seed:
    points, goal = run.points, plain[-1].loss if plain else None
    took = None if goal is None else reached(points, goal, passes)
    paid = None if goal is None else reached(plain, goal, passes)
    end = plain[-1] if plain else None
    at_steps = None if end is None else loss_at([(p.steps, p.loss) for p in points], end.steps)
    return Seed(
        seed=run.seed,
        final_loss=points[-1].loss if points and run.failed is None else None,
        by_seconds=tuple(_at(points, seconds, share * budget) for share in CHECKPOINTS),
        by_passes=tuple(_at(points, passes, share * end.backward_passes) if end else None for share in CHECKPOINTS),
        passes_to_goal=took,
        fewer_passes=None if took is None or not paid else 1 - took / paid,
        time_speedup=None if goal is None else speedup(points, plain, goal, seconds),
        cost_speedup=None if goal is None else speedup(points, plain, goal, cost),
        gap_at_equal_steps=None if at_steps is None or not goal else (at_steps - goal) / goal,
        speedup_over_tuned=ratio(points, tuned, seconds),
        kept=run.kept,
        undone=run.undone,
        failed=run.failed,
    )


def _at(points: Sequence[Point], axis: Axis, x: float) -> float | None:
    """The loss at ``x``; the last one too where the run ended a little short of it, as a last step may."""
    if not points:
        return None
    end = axis(points[-1])
    return points[-1].loss if 0.98 * x <= end <= x else loss_at([(axis(p), p.loss) for p in points], x)


def reached(points: Sequence[Point], goal: float, axis: Axis) -> float | None:
    """What had been paid when the loss first was at or below ``goal``; None: never."""
    before: Point | None = None
    for p in points:
        if p.loss <= goal:
            if before is None or not before.loss > p.loss:
                return axis(p)
            share = (before.loss - goal) / (before.loss - p.loss)
            return axis(before) + share * (axis(p) - axis(before))
        before = p
    return None


def speedup(ours: Sequence[Point], theirs: Sequence[Point], goal: float, axis: Axis) -> float | None:
    """What they paid to reach ``goal`` / what we paid; None where either never did."""
    mine, yours = reached(ours, goal, axis), reached(theirs, goal, axis)
    return None if not mine or yours is None else yours / mine


def ratio(ours: Sequence[Point], theirs: Sequence[Point], axis: Axis) -> float | None:
    """Speed-up to their final loss; where we never reach it, to the best loss of ours, which then is below 1."""
    if not ours or not theirs:
        return None
    found = speedup(ours, theirs, theirs[-1].loss, axis)
    return found if found is not None else speedup(ours, theirs, min(p.loss for p in ours), axis)


def speed_beside(ours: Sequence[Point], theirs: Sequence[Point], axis: Axis) -> float | None:
    """Geometric mean of the speed-ups to ten losses, in equal factors from their first loss to their final one.

    A loss that we never reached counts as reached at our end, which flatters us: we had paid that and were not there.
    None where they made no progress.
    """
    if not ours or not theirs or not theirs[0].loss > theirs[-1].loss > 0:
        return None
    first, last, end = theirs[0].loss, theirs[-1].loss, axis(ours[-1])
    logs = []
    for i in range(1, LEVELS + 1):
        goal = first * (last / first) ** (i / LEVELS)
        paid, took = reached(theirs, max(goal, last), axis), reached(ours, max(goal, last), axis)
        took = end if took is None else took
        if paid and took:
            logs.append(math.log(paid / took))
    return math.exp(statistics.fmean(logs)) if logs else None


def calibration(arm: Arm) -> Calibration:
    """Brier score and kept share of an arm's predictions, all seeds together."""
    outcomes = [outcome for run in arm.runs for outcome in run.outcomes]
    sure = [(kept, better) for confidence, kept, better in outcomes if confidence > SURE]
    brier = mean([(confidence - better) ** 2 for confidence, _, better in outcomes if better is not None])
    kept_share = mean([float(kept) for kept, _ in sure])
    better_share = mean([float(better) for _, better in sure if better is not None])
    tested = sum(better is not None for _, _, better in outcomes)
    return Calibration(arm.name, len(outcomes), tested, brier, len(sure), kept_share, better_share)


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of what was measured; None when nothing was."""
    found = [v for v in values if v is not None]
    return statistics.fmean(found) if found else None


def goals(results: Results, tasks: Sequence[TaskFigures]) -> list[Goal]:
    """Every goal of the design beside what was measured. A seed that never got there makes a goal missed."""
    found: list[Goal] = []
    for t in tasks:
        least_speed, least_fewer = (8.0, 0.9) if t.task == "digits" else (2.0, 0.6)
        seeds = next(a.seeds for a in t.arms if a.name == hybrid_name("Linear"))
        for label, values in (
            ("time", [s.time_speedup for s in seeds]),
            ("cost", [s.cost_speedup for s in seeds]),
        ):
            what = f"{t.task}, same configuration: speed-up to equal validation loss, {label}"
            found.append(_least(what, values, least_speed, "{:.1f}x"))
        fewer = f"{t.task}, same configuration: fewer backward passes to equal validation loss"
        found.append(_least(fewer, [s.fewer_passes for s in seeds], least_fewer, "{:.0%}"))
        if t.task == "code_lm":
            muon = next((a.seeds for a in t.arms if a.name == "hybrid Muon"), ())
            what = "code_lm: hybrid Muon against tuned AdamW, time"
            found.append(_least(what, [s.speedup_over_tuned for s in muon], 1.6, "{:.2f}x"))
        for guard in t.guards:
            for label, ratios in (("cost", guard.cost_ratios), ("time", guard.time_ratios)):
                found.append(_least(f"{t.task}, guard: {guard.name}, {label}", ratios, 0.98, "{:.3f}x", worst=True))
        for c in t.calibration:
            sure = [] if not c.sure else [c.sure_kept], [] if not c.sure else [c.sure_better]
            name = f"{t.task}, {c.predictor_arm}"
            found.append(
                _most(
                    f"{name}: Brier score ({c.tested} tested of {c.predictions} predictions)", c.brier, 0.12, "{:.2f}"
                )
            )
            kept = f"{name}: kept share above confidence 0.85 ({c.sure})"
            found.append(_least(kept, sure[0], 0.85, "{:.0%}"))
            found.append(_least(f"{name}: share of those whose loss fell", sure[1], 0.85, "{:.0%}"))
    found.append(_most("overhead of a full step (median ratio)", results.overhead.ratio, 1.05, "{:.3f}"))
    for m in results.memory:
        if m.predictor == "Linear":
            found.append(_most(f"{m.task}: memory beyond plain training, in models", m.models, 3.0, "{:.1f}"))
    return found


def _least(figure: str, values: Sequence[float | None], least: float, form: str, worst: bool = False) -> Goal:
    known = [v for v in values if v is not None]
    goal = f">= {form.format(least)}"
    if not known:
        return Goal(figure, goal, "never reached" if values else "not measured", False if values else None)
    value = min(known) if worst else statistics.fmean(known)
    missing = len(values) - len(known)
    said = _said(value, least, form, value >= least) + (f" ({missing} of {len(values)} seeds never)" if missing else "")
    return Goal(figure, goal, said, value >= least and not missing)


def _most(figure: str, value: float | None, most: float, form: str) -> Goal:
    said = "not measured" if value is None else _said(value, most, form, value <= most)
    return Goal(figure, f"<= {form.format(most)}", said, None if value is None else value <= most)


def _said(value: float, bound: float, form: str, met: bool) -> str:
    """A figure, with more digits where rounding would hide that it misses its goal."""
    said = form.format(value)
    return said if met or said != form.format(bound) else f"{said} ({value:.4g})"
