"""``hybrid train``: flags in, a run out. Knows ``run.train`` and how to show progress, nothing of training itself."""

import os
import sys
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from trainer_core.cli.output import err, need_extra, out
from trainer_core.cli.progress import progress
from trainer_core.cli.remote import Listen, check_listen
from trainer_core.spec.errors import UserError
from trainer_core.spec.loading import Loaded

Config = Annotated[Path | None, typer.Option("--config", help="Read settings from this TOML file.")]
Preset = Annotated[
    str | None, typer.Option("--preset", help="Start from small, medium, large, specialist or generalist.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one setting (repeatable): --set full_steps=30."),
]


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("train", rich_help_panel="Train")(train)


def train(
    task: Annotated[str, typer.Argument(metavar="TASK", help="digits, code_lm, or module:function returning a task.")],
    config: Config = None,
    preset: Preset = None,
    settings: Settings = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Nominal steps; max_steps if not given.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Seed of model, data order and choices.")] = None,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="Where the run lives; runs/TASK-TIME if not given.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest whole checkpoint of --run-dir.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder of Python source for code_lm, or of a task's own; kept over a resume."),
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="A plain baseline: prediction locked from the start, no probes.")
    ] = False,
    baseline: Annotated[
        Path | None,
        typer.Option("--baseline", metavar="RUN_DIR", help="A plain run of the same work: report compares with it."),
    ] = None,
    listen: Listen = None,
) -> None:
    """Train a task, writing everything it does into a run directory that can be watched and steered meanwhile.

    Settings come from the task, then --preset, then --config, then --set; later ones win. Ctrl-C saves a checkpoint
    and stops, and so do SIGTERM and a terminal that is closed; --resume goes on.

    Exit code: 0 finished or stopped, 1 failed, 2 bad input.
    """
    overrides = parsed(settings or [])
    if resume and run_dir is None:
        raise UserError("--resume: say which run with --run-dir DIR")
    if plain and baseline is not None:
        raise UserError("--plain --baseline: a baseline is not compared with another one; give one of the two")
    check_listen(run_dir, listen)
    need_extra("train", "torch", "numpy", "sklearn", "safetensors")
    if ":" in task:
        sys.path.insert(0, os.getcwd())
    from trainer_core import run  # torch: only here

    with progress(out()) as shown:

        def announce(where: Path, loaded: Loaded) -> None:
            for note in loaded.notes:
                shown.say(f"note: {note}", err())
            runs, this = quote(str(where.parent)), quote(str(where))
            shown.say(f"run: {where}  (watch: hybrid dashboard {runs}; steer: hybrid send {this} ...)")

        result = run.train(
            task,
            config_file=config,
            preset=preset,
            overrides=overrides,
            steps=steps,
            seed=seed,
            run_dir=run_dir,
            resume=resume,
            data=data,
            on_record=shown.take,
            on_start=announce,
            plain=plain,
            baseline=baseline,
            listen=listen,
        )
    if result.rank == 0:
        read = f"hybrid report {quote(str(result.run_dir))}"
        shown.say(f"{result.state} at step {result.step}: {result.because}  (read: {read})")
    if result.state == "failed":
        raise typer.Exit(1)


def parsed(settings: list[str]) -> dict[str, str]:
    """``key=value`` texts as a mapping. Raises UserError for one without a key or an equals sign."""
    pairs = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {text}: write KEY=VALUE, for example --set full_steps=30")
        pairs[key.strip()] = value.strip()
    return pairs
