"""``hybrid dashboard`` and ``hybrid demo``: the dashboard as a process of its own. Imports neither it nor torch."""

import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from trainer_core.cli.children import Child, Told, wait_until
from trainer_core.cli.output import need_extra
from trainer_core.spec.errors import UserError
from trainer_core.spec.loading import resolve

DEFAULT_PORT = 8501
DEMO_TASK = "code_lm"
DEMO_STEPS = 20_000
"""Several minutes on a small machine: time to look and to steer."""
TRAINER_PATIENCE_S = 20.0
"""Long enough to save a checkpoint."""
DASHBOARD_PATIENCE_S = 5.0
AGENT_PATIENCE_S = 3.0
PYTHON = (sys.executable, "-P", "-m")
"""-P: a package named app or trainer_core in the working directory must not be started instead of ours."""

RunsDir = Annotated[Path, typer.Argument(metavar="RUNS_DIR", help="Where the runs are.")]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Do not open a browser.")]
Port = Annotated[int | None, typer.Option("--port", min=1, max=65535, help="Port on 127.0.0.1.")]


ReadOnly = Annotated[bool, typer.Option("--read-only", help="Nobody can steer from this dashboard.")]
Access = Annotated[
    Path | None, typer.Option("--access", metavar="FILE", help="Who may look and steer after a login: docs/access.md.")
]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("demo", rich_help_panel="Start here")(demo)
    app.command("dashboard", rich_help_panel="Watch")(dashboard)


def dashboard(
    runs_dir: RunsDir = Path("runs"),
    port: Port = None,
    no_browser: NoBrowser = False,
    read_only: ReadOnly = False,
    access: Access = None,
) -> None:
    """Show all runs under a directory in the browser, live and finished ones alike, until Ctrl-C.

    Looking is free; steering takes the operator code printed here, or the link beside it, which works once.
    Listens on 127.0.0.1 only. Needs no torch. Exit code 2 when the port is in use.
    """
    need_extra("dashboard", "streamlit", "plotly")
    chosen = free_port(port)
    flags = [*(["--no-browser"] if no_browser else []), *(["--read-only"] if read_only else [])]
    flags += ["--access", str(access)] if access is not None else []
    sys.stdout.flush()
    os.execv(sys.executable, [*dashboard_command(runs_dir, chosen), *flags])


def dashboard_command(runs_dir: Path, port: int) -> list[str]:
    """The command line of the dashboard process."""
    return [*PYTHON, "app", str(runs_dir), "--port", str(port)]


def free_port(wanted: int | None) -> int:
    """``wanted``, or the default, or any free one when nobody asked for one. Raises UserError when it is taken."""
    if wanted is not None:
        if not _is_free(wanted):
            raise UserError(f"--port {wanted}: the port is in use; choose another")
        return wanted
    if _is_free(DEFAULT_PORT):
        return DEFAULT_PORT
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _is_free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False


def demo(
    port: Port = None,
    no_browser: NoBrowser = False,
    runs_dir: Annotated[Path, typer.Option("--runs-dir", help="Where the new run goes.")] = Path("runs"),
    steps: Annotated[int, typer.Option("--steps", min=1, help="Nominal steps to train.")] = DEMO_STEPS,
) -> None:
    """Train for real and watch it in the browser: the trainer and the dashboard, until Ctrl-C.

    Trains a small GPT on the Python standard library's own source (nothing is downloaded) at a low learning rate.
    There predicted steps are worth something for the first one or two thousand steps: most are kept, some are undone;
    later the trainer finds that they no longer pay, and trains in full. Move a threshold, force a full phase, roll
    back, and see each command applied at a step. The dashboard stays up when the training has finished.

    Exit code: 0 ended by you, 1 a process failed, 2 bad input (such as a port in use).
    """
    need_extra("train", "torch", "numpy", "sklearn", "safetensors")
    need_extra("dashboard", "streamlit", "plotly")
    from trainer_core.telemetry.rundir import dated

    if runs_dir.exists() and not runs_dir.is_dir():
        raise UserError(f"{runs_dir}: is a file; give the directory that the new run goes into")
    resolve({"max_steps": steps})  # refused here, not by a trainer beside a dashboard that stays up
    chosen = free_port(port)
    run_dir = runs_dir / dated("demo")
    url = f"http://127.0.0.1:{chosen}/?run={run_dir.name}"
    with Told().listening() as told:
        flags = ["--run", run_dir.name, *(["--no-browser"] if no_browser else [])]
        dashboard = Child([*dashboard_command(runs_dir, chosen), *flags])
        trainer = Child(trainer_command(run_dir, steps))
        try:
            if _answers(chosen, told, dashboard):
                print(f"Dashboard: {url}\nRun:       {run_dir}\nCtrl-C ends both.", flush=True)
                _stay(told, dashboard, trainer, run_dir)
            ended = trainer.code or (0 if told.to_end else dashboard.code or 1)
        finally:
            trainer.end(TRAINER_PATIENCE_S)
            _end_agent(run_dir)
            dashboard.end(DASHBOARD_PATIENCE_S)
    raise typer.Exit(ended if ended >= 0 else 1)  # below zero: killed by a signal


def trainer_command(run_dir: Path, steps: int) -> list[str]:
    """The command line of the demo's training: the task as it stands, which is the adaptive policy at 1e-4."""
    return [*PYTHON, "trainer_core", "train", DEMO_TASK, "--steps", str(steps), "--run-dir", str(run_dir)]


def _answers(port: int, told: Told, dashboard: Child) -> bool:
    """Wait until the dashboard listens; False when we were told to end or it ended by itself."""
    while not told.to_end and dashboard.code is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return True
        except OSError:
            time.sleep(0.1)
    return False


def _stay(told: Told, dashboard: Child, trainer: Child, run_dir: Path) -> None:
    """Until we are told to end or the dashboard ends; say once what became of the training."""
    said = False
    while not told.to_end and dashboard.code is None:
        if trainer.code is not None and not said:
            said = True
            ended = "finished" if trainer.code == 0 else f"ended with exit code {trainer.code}"
            read = f"hybrid report {quote(str(run_dir))}"
            print(f"The training has {ended}; the dashboard stays up. Read it: {read}", flush=True)
        time.sleep(0.1)


def _end_agent(run_dir: Path) -> None:
    """The agent outlives its trainer by design; a demo that has ended needs it no longer."""
    from trainer_core.telemetry import rundir

    for number in (signal.SIGTERM, signal.SIGKILL):
        pid = rundir.holder_of(run_dir, rundir.AGENT_LOCK).get("pid")
        if not rundir.held(run_dir, rundir.AGENT_LOCK) or not isinstance(pid, int):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        wait_until(lambda: not rundir.held(run_dir, rundir.AGENT_LOCK), AGENT_PATIENCE_S)
