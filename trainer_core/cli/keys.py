"""``hybrid keys``: who may watch and steer a run from elsewhere. Knows the key files, no socket."""

import time
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer
from rich.table import Table

from trainer_core.cli.output import err, out, print_json
from trainer_core.spec.errors import UserError

RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The run; for create it need not exist yet.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is: the actor of its commands.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    """Register the group."""
    group = typer.Typer(no_args_is_help=True, help="Make, list and revoke keys for people who watch or steer remotely.")
    for command in (create, list_, revoke):
        group.command(command.__name__.rstrip("_"))(command)
    app.add_typer(group, name="keys", rich_help_panel="Steer")


def create(
    run_dir: RunDir,
    name: Name,
    role: Annotated[str, typer.Option("--role", help="viewer: may watch; operator: may give commands, too.")],
    file: Annotated[
        Path | None, typer.Option("--out", help="Key file to write; RUN_DIR/keys/NAME.key if not given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key, let it in, and write it to a file (mode 0600) for its holder. A running agent knows it at once.

    Exit code 2 for a name that is taken or reserved, or a file that exists.
    """
    from trainer_core.telemetry import keys

    path = keys.create(run_dir, name, role, file)
    made = next(key for key in keys.listed(run_dir) if key.name == name)
    if as_json:
        print_json({**as_keys(made), "file": str(path)})
        return
    out().print(f"{path}: {role} key {name}, fingerprint {made.fingerprint}")
    err().print(f"Give it to {name} over a safe channel: who has the file has the key.")


def list_(run_dir: RunDir, as_json: AsJson = False) -> None:
    """List the named keys that are let in. The run's own keys stay with those who may read its directory."""
    from trainer_core.telemetry import keys

    if not run_dir.is_dir():
        raise UserError(f"{run_dir}: there is no such run directory")
    known = keys.listed(run_dir)
    if as_json:
        print_json([as_keys(key) for key in known])
    elif not known:
        err().print(f"no named keys; make one: hybrid keys create {quote(str(run_dir))} NAME --role viewer")
    else:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for heading in ("name", "role", "created", "fingerprint"):
            table.add_column(heading, no_wrap=True)
        for key in known:
            created = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(key.created))
            table.add_row(key.name, key.role, created, key.fingerprint)
        out().print(table)
    if why := _nobody_elsewhere(run_dir):
        err().print(f"note: {why}")


def _nobody_elsewhere(run_dir: Path) -> str:
    """The run's own alert that nobody on another machine is let in any more; empty when there is none."""
    from contextlib import closing

    from trainer_core.spec.records import AlertRaised, AlertResolved
    from trainer_core.telemetry.agent_process import ACCESS
    from trainer_core.telemetry.journal import JournalReader
    from trainer_core.telemetry.rundir import held

    if not held(run_dir):  # it has ended, and lets nobody in
        return ""
    with closing(JournalReader(run_dir)) as reader:
        rows = sorted([*reader.events("alert-raised"), *reader.events("alert-resolved")], key=lambda row: row.seq)
    said = ""
    for row in rows:
        if isinstance(row.record, AlertRaised) and row.record.rule == ACCESS:
            said = row.record.message
        elif isinstance(row.record, AlertResolved) and row.record.rule == ACCESS:
            said = ""
    return said


def revoke(run_dir: RunDir, name: Name, as_json: AsJson = False) -> None:
    """Let a named key in no more: a running agent cuts it off within a second. Exit code 2 when there is none."""
    from trainer_core.telemetry import keys

    if not run_dir.is_dir():
        raise UserError(f"{run_dir}: there is no such run directory")
    gone = keys.revoke(run_dir, name)
    if as_json:
        print_json(as_keys(gone))
    else:
        out().print(f"{gone.role} key {name} is revoked (fingerprint {gone.fingerprint})")
    if not keys.listed(run_dir):
        err().print("note: that was the last named key: nobody on another machine is let in now")


def as_keys(key: Any) -> dict[str, Any]:
    """What ``--json`` prints of one key; never a secret."""
    return {"name": key.name, "role": key.role, "created": key.created, "fingerprint": key.fingerprint}
