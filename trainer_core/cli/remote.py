"""``--listen`` and ``--connect --key``: flags of runs that are not where the watcher is. Opens no connection."""

from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from trainer_core.cli.output import a_run
from trainer_core.spec.errors import UserError

Connect = Annotated[
    str | None,
    typer.Option("--connect", metavar="HOST:PORT", help="A run elsewhere (train --listen) instead of RUN_DIR."),
]
KeyFile = Annotated[
    Path | None, typer.Option("--key", metavar="FILE", help="Your key for it (hybrid keys create on that machine).")
]
Listen = Annotated[
    str | None,
    typer.Option(
        "--listen",
        metavar="HOST[:PORT]",
        help="Let other machines call the run: PORT and the next two. Needs a key (hybrid keys create).",
    ),
]


class Target(NamedTuple):
    """Which agent is meant: a run directory, or HOST:PORT with a key file. As clients and followers take it."""

    where: Path | str
    key_file: Path | None

    @property
    def run_dir(self) -> Path | None:
        """The run's files, where they are on this machine."""
        return self.where if isinstance(self.where, Path) else None


def target(run_dir: Path | None, connect: str | None, key: Path | None) -> Target:
    """The run that is meant. Raises UserError when both ways of saying it are used, or one by half."""
    if connect is None:
        if run_dir is None:
            raise UserError("say which run: RUN_DIR, or --connect HOST:PORT --key FILE")
        if key is not None:
            raise UserError(f"--key {key}: goes with --connect HOST:PORT; a run here needs none")
        return Target(run_dir, None)
    if run_dir is not None:
        raise UserError(f"{run_dir} --connect {connect}: give one of the two")
    if key is None:
        raise UserError(f"--connect {connect}: needs --key FILE, made on that machine by: hybrid keys create")
    return Target(connect, key)


def checked(run: Target) -> Target:
    """``run``, if there is such a run directory or it is elsewhere. Raises UserError."""
    if run.run_dir is not None:
        a_run(run.run_dir)
    return run


def check_listen(run_dir: Path | None, listen: str | None) -> None:
    """Raise UserError for a place that a new run could not be called at: before torch is loaded for it."""
    from trainer_core.telemetry import listening

    if listen is None:
        return
    if run_dir is not None:
        listening.check(run_dir, listen)
    elif listening.place(listen, "--listen").remote:
        raise UserError(
            f"--listen {listen}: say which run with --run-dir DIR: its keys are made before it begins, "
            "with hybrid keys create DIR NAME --role viewer"
        )
