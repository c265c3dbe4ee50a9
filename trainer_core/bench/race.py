"""Arms in turns, by small slices of wall clock, so that a busy machine slows all of them alike. One thread."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

import msgspec
import torch

from trainer_core.bench import plan
from trainer_core.bench.arms import Arm, Hybrid, Plain
from trainer_core.bench.results import Arm as ArmResult
from trainer_core.bench.results import Grid, Run, TaskResult
from trainer_core.spec.config import Config
from trainer_core.spec.errors import UserError
from trainer_core.spec.loading import load
from trainer_core.tasks import Task, make_task, task_defaults

Say = Callable[[str], None]
_OFF = {"checkpoint_every": "0", "validate_every": "0"}
_WARMUPS = ("hybrid_trainer_config.warmup_steps", "learning_rate_schedule.warmup_steps")
_SPARE = 0.8
"""Of the time that is left, what is given to the arms' training: opening and closing them takes some, too."""
_LEAST_BUDGET = 0.5
_PACE_SECONDS = 2.0
_MOST_WARMUP = 0.1
"""Of the steps that the budget holds: a short race shortens every arm's warmup alike."""


class Workload:
    """One task with its batches, shared by the arms of equal seed and batch size."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._tasks: dict[tuple[int, int], Task] = {}

    def config(self, seed: int, settings: dict[str, str]) -> Config:
        """The task's own configuration under ``settings``."""
        overrides = {**_OFF, "training.seed": str(seed), **settings}
        return load(None, None, overrides, task_defaults(self.name)).config

    def task(self, config: Config) -> Task:
        """The data and the model of ``config``."""
        key = config.training.seed, config.training.batch_size
        if key not in self._tasks:
            self._tasks[key] = make_task(self.name, config, None, torch.device("cpu"))
        return self._tasks[key]


def seconds_for(name: str, steps: int, seed: int) -> float:
    """How long the plain arm of a task needs for ``steps`` steps, roughly: by what it does alone in two seconds."""
    work = Workload(name)
    config = work.config(seed, {})
    arm = Plain(work.task(config), config, False, _PACE_SECONDS, 2)
    arm.race(_PACE_SECONDS)
    return max(_LEAST_BUDGET, steps * arm.spent / arm.steps)


def take_turns(arms: Sequence[Arm], seconds: float, said: Callable[[float], None] = lambda share: None) -> None:
    """Race until every arm has had its time; who begins a round changes from round to round."""
    turn = 0
    while any(not arm.over for arm in arms):
        first = turn % len(arms)
        for arm in [*arms[first:], *arms[:first]]:
            arm.race(seconds)
        turn += 1
        said(sum(min(1.0, arm.spent / arm.budget) if arm.failed is None else 1.0 for arm in arms) / len(arms))


class Tuned(msgspec.Struct, frozen=True):
    """The grid, and what it showed of this machine."""

    grid: Grid
    steps_per_second: float
    validation_seconds: float


def tune(work: Workload, seed: int, budget: float, slice_seconds: float, say: Say) -> Tuned:
    """Try the plain baseline's learning rates. Raises UserError when none gave a finite loss."""
    say(f"{work.name}: learning rates {', '.join(f'{r:g}' for r in plan.GRID)}, {budget:g} s each")
    arms = {}
    for rate in plan.GRID:
        config = work.config(seed, plan.rate(rate, constant=True))
        arms[rate] = Plain(work.task(config), config, True, budget, 2)
    take_turns(list(arms.values()), slice_seconds)
    losses = {rate: arm.points[-1].loss if arm.failed is None else math.inf for rate, arm in arms.items()}
    finite = {rate: loss for rate, loss in losses.items() if math.isfinite(loss)}
    if not finite:
        raise UserError(f"{work.name}: no learning rate of the grid gave a finite loss within {budget:g} s")
    tuned = min(finite, key=finite.__getitem__)
    shown = {f"{rate:g}": loss if math.isfinite(loss) else None for rate, loss in losses.items()}
    best, steps, spent = arms[tuned], sum(a.steps for a in arms.values()), sum(a.spent for a in arms.values())
    return Tuned(Grid(budget, shown, tuned), steps / max(spent, 1e-9), best.validating / max(len(best.points), 1))


def race(
    name: str,
    seeds: Sequence[int],
    budget: float,
    points: int,
    say: Say,
    limit: float | None = None,
    steps: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> TaskResult:
    """The whole race of one task, ``budget`` seconds for every arm and seed.

    ``limit``: the budget shrinks so that the race ends within so many seconds. ``steps``: the budget becomes what the
    plain arm needs for so many steps at its pace among its rivals, seen in a short race; alone, or in the grid, it is a
    fifth faster.
    """
    ends = None if limit is None else clock() + limit
    work = Workload(name)
    tuned = tune(work, seeds[0], budget / 4, slice_of(budget), say)
    grid = tuned.grid
    planned, guards = plan.planned(name, grid.tuned)
    if steps is not None:
        budget = max(_LEAST_BUDGET, steps * _seconds_a_step(work, planned, seeds[0], say))
    if ends is not None:
        runs_left = len(planned) * len(seeds)
        budget = shrunk(budget, ends - clock(), runs_left, (points + 1) * tuned.validation_seconds)
    short = _shortened(work.config(seeds[0], {}), tuned.steps_per_second * budget)
    runs: dict[str, list[Run]] = {arm.name: [] for arm in planned}
    for seed in seeds:
        say(f"{name}: seed {seed}, {len(planned)} arms, {budget:.3g} s each, tuned rate {grid.tuned:g}")
        for arm_name, run in _one_seed(work, planned, short, seed, budget, points, slice_of(budget), say):
            runs[arm_name].append(run)
    arms = tuple(
        ArmResult(a.name, a.kind, a.about, short | a.settings, a.compressed, tuple(runs[a.name])) for a in planned
    )
    return TaskResult(name, budget, slice_of(budget), grid, arms, tuple(guards))


def _seconds_a_step(work: Workload, planned: Sequence[plan.Planned], seed: int, say: Say) -> float:
    """Of the plain arm, in a race of two seconds for every arm."""
    say(f"{work.name}: the pace of {len(planned)} arms, {_PACE_SECONDS:g} s each")
    runs = dict(_one_seed(work, planned, {}, seed, _PACE_SECONDS, 2, slice_of(_PACE_SECONDS), lambda _: None))
    plain = runs[plan.BASELINE]
    return plain.points[-1].seconds / plain.batches


def shrunk(budget: float, left: float, runs: int, validating: float) -> float:
    """The seconds of training that ``runs`` arms may have within ``left`` seconds, each validating for so long."""
    return max(_LEAST_BUDGET, min(budget, _SPARE * left / runs - validating))


def slice_of(budget: float) -> float:
    """Seconds of one turn."""
    return min(0.25, budget / 10)


def _one_seed(
    work: Workload,
    planned: Sequence[plan.Planned],
    short: dict[str, str],
    seed: int,
    budget: float,
    points: int,
    slice_seconds: float,
    say: Say,
) -> Iterable[tuple[str, Run]]:
    with ExitStack() as opened:
        arms: dict[str, Arm] = {}
        refused: dict[str, Run] = {}
        for p in planned:
            try:
                arm = _made(work, p, short, seed, budget, points)
            except UserError as error:  # what this version cannot do is part of the result
                refused[p.name] = Run(seed, (), 0, 0, 0, (), None, str(error))
                continue
            opened.callback(arm.close)
            arms[p.name] = arm
        told = [0.0]

        def said(share: float) -> None:
            if share - told[0] >= 0.25:
                told[0] = share
                say(f"{work.name}: seed {seed}, {share:.0%}")

        take_turns(list(arms.values()), slice_seconds, said)
        return [(p.name, refused[p.name] if p.name in refused else arms[p.name].run()) for p in planned]


def _made(work: Workload, p: plan.Planned, short: dict[str, str], seed: int, budget: float, points: int) -> Arm:
    config = work.config(seed, short | p.settings)
    task = work.task(config)
    if p.kind == "plain":
        return Plain(task, config, p.compressed, budget, points)
    return Hybrid(task, config, p.compressed, budget, points, p.locked)


def _shortened(config: Config, steps: float) -> dict[str, str]:
    most = max(1, int(_MOST_WARMUP * steps))
    now = config.hybrid_trainer_config.warmup_steps, config.learning_rate_schedule.warmup_steps
    return {key: str(most) for key, value in zip(_WARMUPS, now, strict=True) if value > most}
