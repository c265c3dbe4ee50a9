"""``hybrid bench``: measures on this machine. Knows which module measures what."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from trainer_core.cli.output import need_extra
from trainer_core.spec.errors import UserError

AsJson = Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")]


def add_to(app: typer.Typer) -> None:
    """Register ``bench`` and its commands."""
    bench = typer.Typer(no_args_is_help=True, help="Measure on this machine; ratios come from one run.")
    bench.command("telemetry")(telemetry)
    bench.command("engine")(engine)
    bench.command("dashboard")(dashboard)
    app.add_typer(bench, name="bench", rich_help_panel="Measure")


def telemetry(
    as_json: AsJson = False,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer of everything, no run of a million rows.")] = False,
    write: Annotated[
        Path | None, typer.Option("--write", metavar="FILE", help="Write the page, as docs/benchmarks-telemetry.md.")
    ] = None,
    recorded: Annotated[
        Path | None, typer.Option("--from", metavar="JSON", help="Measure nothing: show what --json printed before.")
    ] = None,
) -> None:
    """What a record costs the training thread, how long it takes to a client, how long a command takes to act.

    The training thread is measured with the dashboard absent, present and stopped, and with the disk standing still,
    beside TensorBoard in the same run. Long runs are opened by a process of its own. Progress goes to stderr.
    """
    if recorded is not None and quick:
        raise UserError("--from: measures nothing, so --quick does not go with it")
    from trainer_core import bench_telemetry

    bench_telemetry.run(json=as_json, quick=quick, write=write, recorded=recorded)


def dashboard(
    as_json: AsJson = False,
    quick: Annotated[bool, typer.Option("--quick", help="One rate, short windows, no run of a million steps.")] = False,
    write: Annotated[
        Path | None, typer.Option("--write", metavar="FILE", help="Write the page, as docs/benchmarks-dashboard.md.")
    ] = None,
    recorded: Annotated[
        Path | None, typer.Option("--from", metavar="JSON", help="Measure nothing: show what --json printed before.")
    ] = None,
    soak: Annotated[
        float | None, typer.Option("--soak", metavar="MINUTES", help="Also watch a run for so long: memory, remounts.")
    ] = None,
) -> None:
    """Step to pixel, CPU, bytes and memory of the dashboard in a real browser, beside a naive page in the same run.

    Needs Chromium (or CHROMIUM=PATH) and the package playwright. Progress goes to stderr.
    """
    need_extra("dashboard", "streamlit", "plotly", "numpy")
    need_extra("dev", "playwright")
    if soak is not None and not 0.1 <= soak <= 1440:
        raise UserError(f"--soak {soak:g}: must be minutes from 0.1 to 1440")
    if recorded is not None and (quick or soak is not None):
        raise UserError("--from: measures nothing, so --quick and --soak do not go with it")
    if write is not None and (write.is_dir() or not write.absolute().parent.is_dir()):
        raise UserError(f"--write {write}: there is no folder {write.absolute().parent}, or it is a folder itself")
    words = [sys.executable, "-m", "app.bench"]
    words += ["--json"] * as_json + ["--quick"] * quick
    words += ["--write", str(write)] if write is not None else []
    words += ["--from", str(recorded)] if recorded is not None else []
    words += ["--soak", f"{soak:g}"] if soak is not None else []
    raise typer.Exit(subprocess.run(words, check=False).returncode)


def engine(
    task: Annotated[
        str | None, typer.Option("--task", metavar="digits|code_lm", help="One task only; both if not given.")
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", metavar="N", help="Seeds 0 to N-1; 3, quick: 1.")] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            "--budget",
            metavar="SECONDS",
            help="Training of each arm and seed; else as long as plain takes for the task's number of steps.",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Short budgets, one seed: within five minutes.")] = False,
    as_json: AsJson = False,
    write: Annotated[
        Path | None, typer.Option("--write", metavar="FILE", help="Write the tables, as docs/benchmarks.md.")
    ] = None,
    recorded: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="JSON", help="Measure nothing: show what --json printed before (repeatable)."),
    ] = None,
) -> None:
    """Race hybrid training against plain training at equal wall clock, arms in turns, one thread.

    Plain with a tuned rate and a compressed schedule, plain with the same configuration or a raised rate, hybrid with
    each predictor, hybrid locked, and pairs of arms where prediction is not expected to pay. Every seed is shown, goals
    are met or missed. Progress goes to stderr.
    """
    need_extra("train", "torch", "numpy", "sklearn", "safetensors")
    from trainer_core.bench.engine import TASKS, Options, run, show
    from trainer_core.bench.recorded import read

    if task is not None and task not in TASKS:
        raise UserError(f"--task {task}: must be one of {', '.join(TASKS)}")
    if seeds is not None and not 1 <= seeds <= 100:
        raise UserError(f"--seeds {seeds}: must be a whole number from 1 to 100")
    if budget is not None and not 0.1 <= budget <= 86_400:
        raise UserError(f"--budget {budget:g}: must be a number of seconds from 0.1 to 86400")
    if write is not None and (write.is_dir() or not write.absolute().parent.is_dir()):
        raise UserError(f"--write {write}: there is no folder {write.absolute().parent}, or it is a folder itself")
    if recorded:
        if task is not None or seeds is not None or budget is not None or quick:
            raise UserError("--from: shows what was measured; --task, --seeds, --budget and --quick ask to measure")
        return show(read(recorded), as_json, write)
    asked = Options((task,) if task else TASKS, seeds or (1 if quick else 3), budget, quick)
    run(asked, as_json, write, _command(task, seeds, budget, quick))


def _command(task: str | None, seeds: int | None, budget: float | None, quick: bool) -> str:
    words = ["hybrid bench engine"]
    words += [f"--task {task}"] if task else []
    words += [f"--seeds {seeds}"] if seeds is not None else []
    words += [f"--budget {budget:g}"] if budget is not None else []
    words += ["--quick"] if quick else []
    return " ".join(words)
