"""``hybrid config check``: a TOML file as the trainer would read it. Knows spec and tasks' defaults; runs nothing."""

from pathlib import Path
from typing import Annotated

import typer

from trainer_core.cli.output import err, need_extra
from trainer_core.cli.training import Preset, Settings, parsed
from trainer_core.spec import loading
from trainer_core.spec.errors import UserError


def add_to(app: typer.Typer) -> None:
    """Register ``config`` and its commands."""
    config = typer.Typer(no_args_is_help=True, help="Check configuration files.")
    config.command("check")(check)
    app.add_typer(config, name="config", rich_help_panel="Train")


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The TOML file.")],
    preset: Preset = None,
    settings: Settings = None,
    task: Annotated[
        str | None, typer.Option("--task", metavar="TASK", help="Over the defaults of this task: digits or code_lm.")
    ] = None,
) -> None:
    """Print the resolved configuration as TOML: every setting with the value that a script's trainer would use.

    hybrid train puts the defaults of its task beneath: --task shows what it would use. Notes about keys that were read
    as belonging to another section go to stderr. Exit code: 0 valid, 2 invalid (one sentence naming key, value and
    bound).
    """
    overrides = parsed(settings or [])
    loaded = loading.load(file, preset=preset, overrides=overrides, defaults=_defaults(task))
    for note in loaded.notes:
        err().print(f"note: {note}")
    print(loading.to_toml(loaded.config), end="")


def _defaults(task: str | None) -> loading.Tables:
    """What a task sets itself; nothing without one, or for one of the user's own. Raises UserError."""
    if task is None or ":" in task:
        return {}
    need_extra("train", "torch", "numpy", "sklearn", "safetensors")
    from trainer_core.tasks import BUILT_IN, task_defaults  # torch: only here

    if task not in BUILT_IN:
        raise UserError(f"--task {task}: one of {', '.join(BUILT_IN)}, or module:function")
    return task_defaults(task)
