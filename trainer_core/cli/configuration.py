"""``hybrid config check``: a TOML file as the trainer would read it. Knows spec only; runs nothing."""

from pathlib import Path
from typing import Annotated

import typer

from trainer_core.cli.output import err
from trainer_core.cli.training import Preset, Settings, parsed
from trainer_core.spec import loading


def add_to(app: typer.Typer) -> None:
    """Register ``config`` and its commands."""
    config = typer.Typer(no_args_is_help=True, help="Check configuration files.")
    config.command("check")(check)
    app.add_typer(config, name="config", rich_help_panel="Train")


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The TOML file.")],
    preset: Preset = None,
    settings: Settings = None,
) -> None:
    """Print the resolved configuration as TOML: every setting with the value a run would use.

    Notes about keys that were read as belonging to another section go to stderr. Exit code: 0 valid, 2 invalid (one
    sentence naming key, value and bound).
    """
    loaded = loading.load(file, preset=preset, overrides=parsed(settings or []))
    for note in loaded.notes:
        err().print(f"note: {note}")
    print(loading.to_toml(loaded.config), end="")
