"""The figures as a Markdown page, which is also what the terminal shows. Measures nothing."""

from collections.abc import Sequence

from trainer_core.bench_telemetry.results import Figures, goals
from trainer_core.bench_telemetry.trackers import TENSORBOARD, TRACKIO, WANDB


def page(figures: Figures) -> str:
    """docs/benchmarks-telemetry.md."""
    place = figures.place
    goal_rows = [(g.what, g.target, g.measured, "met" if g.met else "**missed**") for g in goals(figures)]
    cost_rows = [(c.situation, c.what, f"{c.p50_us:.1f}", f"{c.p99_us:.1f}", f"{c.measured}") for c in figures.costs]
    delays = [*figures.delays, *([figures.command] if figures.command is not None else [])]
    delay_rows = [(d.what, f"{d.p50_ms:.1f}", f"{d.p95_ms:.1f}", _or(d.most_steps), f"{d.measured}") for d in delays]
    through = figures.throughput
    lost = ", ".join(f"{name}: {count}" for name, count in figures.lost.items())
    sections = [
        "# Benchmarks of the telemetry",
        "Written by `hybrid bench telemetry --write` from its own JSON; edit nothing here by hand.",
        f"{place.processor}, {place.cores} cores, {place.system}, Python {place.python}; load at the end "
        f"{place.load:.1f}; it took {figures.seconds:.0f} s.",
        "## Goals",
        _table(("figure", "goal", "measured", ""), goal_rows),
        "## One record in the training thread, microseconds",
        _table(("situation", "what", "p50", "p99", "measured"), cost_rows),
        *_cheaper(figures),
        f"Records lost: {lost}.",
        "*Dashboard stopped*: its process and the agent under SIGSTOP. *Disk stalled*: another connection holds the "
        "journal's write lock, so that no commit succeeds meanwhile.",
        "## Between processes, milliseconds",
        _table(("what", "p50", "p95", "most steps", "measured"), delay_rows),
        *([] if figures.command is not None else ["torch is not installed: no training loop to send commands to."]),
        f"Throughput from a reporter to a client in another process: {through.per_second:,.0f} records a second "
        f"({through.records:,} records, {through.lost} lost).",
        "## The agent's process",
        _table(
            ("steps a second", "CPU, % of a core", "memory, MB"),
            [(f"{a.steps_per_second}", f"{a.cpu_percent:.1f}", f"{a.memory_mb:.0f}") for a in figures.agents],
        ),
        "## Opening a run, in a process of its own",
        _table(
            (
                "rows",
                "of them sealed",
                "newest 2000, s",
                "all, s",
                "memory, MB",
                "to one polars table, s",
                "bytes a step",
            ),
            [
                (
                    f"{j.rows:,}",
                    f"{j.sealed:,}",
                    f"{j.first_seconds:.3f}",
                    f"{j.all_seconds:.2f}",
                    f"{j.memory_mb:.0f}",
                    f"{j.to_polars_seconds:.2f}",
                    f"{j.bytes_per_step:.0f}",
                )
                for j in figures.joins
            ],
        ),
    ]
    return "\n\n".join(sections) + "\n"


def _cheaper(figures: Figures) -> list[str]:
    """How many times cheaper a record is than another tracker's calls, in each situation."""
    said = []
    for what, name in ((TENSORBOARD, "TensorBoard"), (WANDB, "wandb, offline"), (TRACKIO, "trackio")):
        ratios = []
        for situation in figures.lost:
            ours, theirs = figures.cost("one StepRecord", situation), figures.cost(what, situation)
            if ours is not None and theirs is not None:
                ratios.append(f"{situation} {theirs.p50_us / ours.p50_us:.0f}x")
        said.append(
            f"A record is cheaper than the calls of {name}, at the median: {', '.join(ratios)}."
            if ratios
            else f"{name} was not installed, so it is not beside it."
        )
    return said


def _or(value: int | None) -> str:
    return "" if value is None else f"{value}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
