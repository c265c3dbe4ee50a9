"""docs/benchmarks.md from the results, and from nothing else. Pure: the same JSON gives the same text."""

from collections.abc import Iterator, Sequence

from trainer_core.bench.figures import CHECKPOINTS, LEVELS, ArmFigures, TaskFigures, goals, mean, task_figures
from trainer_core.bench.plan import hybrid_name
from trainer_core.bench.results import Results, TaskResult

HEADLINE = (("fewer backward passes", "79 %"), ("loss gap at equal steps", "1.2 %"), ("speed-up", "4.5x"))
"""The document's own figures, which it did not measure."""


def document(results: Results) -> str:
    """The whole file."""
    tasks = [task_figures(t) for t in results.tasks]
    judged = [(g.figure, g.goal, g.measured, _met(g.met)) for g in goals(results, tasks)]
    lines = [
        "# Benchmarks",
        "",
        "Written by `hybrid bench engine --write` from its own JSON; edit nothing here by hand.",
        "",
        f"Command: `{results.command}`. "
        f"It took {results.took_seconds:.0f} s" + (" (quick: short budgets, little weight)." if results.quick else "."),
        "",
        *(f"- {key}: {value}" for key, value in {**results.machine, **results.versions}.items()),
        "",
        "## Goals",
        "",
        "A goal holds for the mean over seeds, and for the worst seed where it is a guard; a seed that never gets "
        "there misses it.",
        "",
        *_table(("figure", "goal", "measured", ""), judged),
        "",
        "## The document's headline",
        "",
        *_headline(tasks),
    ]
    for result, figures in zip(results.tasks, tasks, strict=True):
        lines += ["", *_task(result, figures)]
    o = results.overhead
    lines += [
        "",
        "## Overhead and memory",
        "",
        f"A full step on code_lm, {o.pairs} pairs, prediction locked: plain {o.plain_ms:.2f} ms, hybrid "
        f"{o.hybrid_ms:.2f} ms, ratio of medians {o.ratio:.3f}, median of paired ratios {o.paired_ratio:.3f}.",
        "",
        "Memory beyond weights, gradients and optimizer state, in models; remembered residuals may add "
        "`residual_memory_mb`:",
        "",
        *_table(
            ("task", "predictor", "models"),
            [(m.task, m.predictor, _number(m.models, ".1f") if m.failed is None else m.failed) for m in results.memory],
        ),
        "",
    ]
    return "\n".join(lines)


def summary(results: Results) -> str:
    """The terminal's text: goals, and the costs to equal loss."""
    tasks = [task_figures(t) for t in results.tasks]
    width = max(len(g.figure) for g in goals(results, tasks))
    lines = [
        f"{g.figure:<{width}}  goal {g.goal:<9} measured {g.measured:<14} {_met(g.met)}" for g in goals(results, tasks)
    ]
    for result, figures in zip(results.tasks, tasks, strict=True):
        lines += ["", f"{result.task}: {result.budget_seconds:g} s each, tuned rate {result.grid.tuned:g}"]
        for arm in figures.arms:
            lines.append(f"  {arm.name:<30} " + "  ".join(_short(arm)))
    return "\n".join(lines)


def _short(arm: ArmFigures) -> Iterator[str]:
    for s in arm.seeds:
        if s.failed is not None:
            yield f"seed {s.seed}: failed: {s.failed}"
        else:
            yield (
                f"seed {s.seed}: loss {_number(s.final_loss, '.4f')}, time {_number(s.time_speedup, '.2f')}x, "
                f"cost {_number(s.cost_speedup, '.2f')}x"
            )


def _met(met: bool | None) -> str:
    return {True: "met", False: "**missed**", None: "not measured"}[met]


def _headline(tasks: Sequence[TaskFigures]) -> Iterator[str]:
    rows = []
    for t in tasks:
        seeds = next(a.seeds for a in t.arms if a.name == hybrid_name("Linear"))
        values = (
            _number(mean([s.fewer_passes for s in seeds]), ".0%"),
            _number(mean([s.gap_at_equal_steps for s in seeds]), "+.1%"),
            _number(mean([s.time_speedup for s in seeds]), ".1f", "x"),
        )
        rows += [(t.task, what, said, value) for (what, said), value in zip(HEADLINE, values, strict=True)]
    yield "Passes and speed-up are to equal validation loss, same configuration, Linear predictor, mean over the seeds"
    yield "that got there; the gap is at the baseline's nominal steps."
    yield ""
    yield from _table(("task", "figure", "document", "measured"), rows)


def _task(result: TaskResult, figures: TaskFigures) -> Iterator[str]:
    grid = ", ".join(f"{rate}: {_number(loss, '.4f')}" for rate, loss in result.grid.losses.items())
    yield f"## {result.task}"
    yield ""
    budget, short = result.budget_seconds, result.grid.budget_seconds
    seeds = ", ".join(str(run.seed) for run in result.arms[0].runs)
    yield f"{budget:g} s of training for every arm and seed, in turns of {result.slice_seconds:g} s; one thread."
    yield f"Seeds: {seeds}."
    yield f"Learning rates tried for {short:g} s each (final loss): {grid}. Tuned: {result.grid.tuned:g}."
    pace = _number(figures.locked_time_ratio, ".3f")
    yield f"Steps of the locked arm took {pace} times as long as plain ones in the race."
    yield ""
    yield "### Cost to the final validation loss of `plain`"
    yield ""
    yield "Speed-up over tuned: time to the final loss of `plain tuned`; below 1, to this arm's own best loss."
    yield ""
    heads = ("arm", "seed", "final loss", "backward passes", "fewer", "time", "cost", "gap at equal steps",
             "over tuned", "kept / undone")  # fmt: skip
    yield from _table(heads, [row for arm in figures.arms for row in _seed_rows(arm)])
    for title, which in (("wall clock", "by_seconds"), ("backward passes of `plain`", "by_passes")):
        yield ""
        yield f"### Validation loss by {title}, mean (lowest to highest seed)"
        yield ""
        rows = []
        for arm in figures.arms:
            columns = zip(*(getattr(s, which) for s in arm.seeds), strict=True)
            rows.append((arm.name, *(_spread(column) for column in columns)))
        yield from _table(("arm", *(f"{share:.0%}" for share in CHECKPOINTS)), rows)
    yield ""
    yield "### Guards: hybrid / plain speed where prediction is not expected to pay"
    yield ""
    yield f"Geometric mean of the speed-ups to {LEVELS} losses, in equal factors from plain's first to its final one."
    yield "A loss that hybrid never reached counts as reached at its end. 1 is a draw; the goal is for the worst seed."
    yield "Most of these losses lie in the first steps of `code_lm`, where one step more or less is a tenth."
    yield "*Pace* knows no loss: cost paid a second over the whole race, hybrid / plain."
    yield ""
    rows = [(g.name, *(_each(r, ".3f") for r in (g.cost_ratios, g.time_ratios, g.pace_ratios))) for g in figures.guards]
    yield from _table(("guard", "cost, each seed", "time, each seed", "pace, each seed"), rows)
    yield ""
    yield "### What each arm is"
    yield ""
    settings = {a.name: ", ".join(f"{k}={v}" for k, v in a.settings.items()) for a in result.arms}
    yield from _table(
        ("arm", "for", "settings"), [(a.name, a.about, settings[a.name] or "the task's own") for a in figures.arms]
    )


def _seed_rows(arm: ArmFigures) -> Iterator[tuple[str, ...]]:
    for s in arm.seeds:
        if s.failed is not None:
            yield (arm.name, str(s.seed), f"failed: {s.failed}", *[""] * 7)
            continue
        yield (
            arm.name,
            str(s.seed),
            _number(s.final_loss, ".4f"),
            _number(s.passes_to_goal, ".0f"),
            _number(s.fewer_passes, ".0%"),
            _number(s.time_speedup, ".2f", "x"),
            _number(s.cost_speedup, ".2f", "x"),
            _number(s.gap_at_equal_steps, "+.1%"),
            _number(s.speedup_over_tuned, ".2f", "x"),
            f"{s.kept} / {s.undone}",
        )
    times = [s.time_speedup for s in arm.seeds if s.time_speedup is not None]
    costs = [s.cost_speedup for s in arm.seeds if s.cost_speedup is not None]
    if len(arm.seeds) > 1:
        yield arm.name, "mean", "", "", "", _spread(times, ".2f"), _spread(costs, ".2f"), "", "", ""


def _spread(values: Sequence[float | None], form: str = ".4f") -> str:
    known = [v for v in values if v is not None]
    if not known:
        return "-"
    middle = f"{mean(known):{form}}"
    return middle if len(known) == 1 else f"{middle} ({min(known):{form}} to {max(known):{form}})"


def _each(values: Sequence[float | None], form: str) -> str:
    return ", ".join(_number(v, form) for v in values)


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
