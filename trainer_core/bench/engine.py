"""The benchmark from end to end: options -> Results -> text, JSON, docs/benchmarks.md. Prints progress on stderr."""

import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec
import torch

from trainer_core import __version__
from trainer_core.bench import plan
from trainer_core.bench.figures import goals, task_figures
from trainer_core.bench.markdown import document, summary
from trainer_core.bench.memory import measure_memory
from trainer_core.bench.race import race, seconds_for
from trainer_core.bench.results import FORMAT, Results
from trainer_core.bench.steps import measure_overhead

TASKS = ("digits", "code_lm")
STEPS = {"digits": 1300, "code_lm": 350}
"""Every arm and seed of the whole benchmark has the time that the plain arm needs for so many steps on this machine:
the gain grows with the length of a race, and a race of so many seconds is a short one on a slow machine. On ``digits``
the plain run's validation loss stops falling after some 2000 steps, and the training loss goes on: a race beyond that
asks who meets the lowest dip."""
QUICK = {"digits": 3.0, "code_lm": 6.0}
"""Seconds for each arm and seed of the quick one."""
QUICK_SECONDS = 270.0
"""The quick benchmark ends within five minutes: its budgets shrink where a busy machine needs longer for the rest."""
POINTS = {"digits": (256, 6), "code_lm": (32, 6)}
"""Validations of each arm and seed, likewise. At its floor a loss wanders by a fifth from step to step: of few points
one or the other arm's meet the lucky dips. A validation of ``digits`` costs next to nothing."""


class Options(msgspec.Struct, frozen=True):
    """What was asked for."""

    tasks: tuple[str, ...]
    seeds: int
    budget: float | None
    quick: bool

    @property
    def pairs(self) -> int:
        """Pairs of steps of the overhead measurement: fewer where a tiny budget asks for a tiny benchmark."""
        most = 60 if self.quick else 400
        return most if self.budget is None else max(8, min(most, int(40 * self.budget)))


def run(options: Options, as_json: bool, write: Path | None, command: str) -> None:
    """Measure, print, and write the document; a file appears only when all is done."""
    show(measure(options, command), as_json, write)


def show(results: Results, as_json: bool, write: Path | None) -> None:
    """Print the results, and write the document."""
    print(to_json(results) if as_json else summary(results))
    if write is not None:
        partial = write.with_name(f".{write.name}.{os.getpid()}")
        try:
            partial.write_text(document(results), encoding="utf-8")
            partial.replace(write)
        finally:
            partial.unlink(missing_ok=True)


def measure(options: Options, command: str) -> Results:
    """Everything the results hold."""
    torch.set_num_threads(1)  # as the built-in tasks train by default: small tensors gain little from more
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begun:5.0f} s] {text}", file=sys.stderr, flush=True)

    seeds = tuple(range(options.seeds))
    say("overhead of a full step")
    overhead = measure_overhead(options.pairs)
    say("memory")
    predictors = plan.choices("predictor_config", "type")
    memory = tuple(measure_memory(task, p, 14) for task in options.tasks for p in predictors)
    tasks = []
    for i, task in enumerate(options.tasks):
        budget, limit, steps = options.budget, None, None
        if budget is None and options.quick:
            budget = QUICK[task]
        elif budget is None:
            steps = STEPS[task]
            budget = seconds_for(task, steps, seeds[0])
        if options.quick and options.budget is None:
            shares = [QUICK[name] for name in options.tasks[i:]]
            limit = (QUICK_SECONDS - (time.monotonic() - begun)) * shares[0] / sum(shares)
        tasks.append(race(task, seeds, budget, POINTS[task][options.quick], say, limit, steps))
    return Results(
        format=FORMAT,
        command=command,
        quick=options.quick,
        seeds=seeds,
        machine=machine(),
        versions=versions(("torch", "numpy", "scikit-learn")),
        took_seconds=time.monotonic() - begun,
        tasks=tuple(tasks),
        overhead=overhead,
        memory=memory,
    )


def machine() -> dict[str, str]:
    """What a reader needs to judge the times; no names."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "threads used": str(torch.get_num_threads()),
        "load at the end": f"{load:.1f}",
        "system": platform.system(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def versions(packages: Sequence[str]) -> dict[str, str]:
    """This package, Python and what trains."""
    return {"hybrid": __version__, "python": platform.python_version(), **{p: version(p) for p in packages}}


def to_json(results: Results) -> str:
    """Results and the figures that follow from them; a number JSON has not is null."""
    figures = [task_figures(t) for t in results.tasks]
    judged = goals(results, figures)
    whole = {**msgspec.to_builtins(results), "figures": msgspec.to_builtins(figures),
             "goals": msgspec.to_builtins(judged)}  # fmt: skip
    return json.dumps(msgspec.json.decode(msgspec.json.encode(whole)), indent=2)
