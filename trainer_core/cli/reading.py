"""``hybrid runs``, ``report`` and ``export``: what runs did, read from their journals. Changes nothing."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.table import Table

from trainer_core.cli.output import a_run, err, out, print_json, visible
from trainer_core.cli.session_log import session_log
from trainer_core.spec.errors import UserError
from trainer_core.spec.records import Row
from trainer_core.telemetry.report import report as report_of

if TYPE_CHECKING:  # sqlite, polars and zmq are loaded by the commands that need them, so that --help is quick
    from trainer_core.telemetry.journal import JournalReader
    from trainer_core.telemetry.rundir import RunSummary

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A live or finished run.")]
Baseline = Annotated[
    Path | None,
    typer.Option("--baseline", metavar="RUN_DIR", help="Compare with this plain run (hybrid train TASK --plain)."),
]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (runs, report, export):
        app.command(rich_help_panel="Read")(command)


def runs(
    runs_dir: Annotated[Path, typer.Argument(metavar="RUNS_DIR", help="Where to look.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List the runs under a directory: what each is doing, and why it is thought so."""
    from trainer_core.telemetry import rundir

    if not runs_dir.is_dir() and runs_dir != Path("runs"):
        raise UserError(f"{runs_dir}: there is no such directory")
    found = rundir.find_runs(runs_dir)
    if as_json:
        print_json([as_keys(run) for run in found])
    elif not found:
        err().print(f"no runs under {runs_dir}; start one: hybrid demo")
    else:
        _show(found)


def as_keys(run: "RunSummary") -> dict[str, Any]:
    """What ``runs --json`` prints of one run."""
    return {"name": run.name, "run_dir": str(run.path), "task": run.task, **msgspec.to_builtins(run.status)}


def _show(found: Sequence["RunSummary"]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("run", "task", "state", "step", "phase"):
        table.add_column(heading, justify="right" if heading == "step" else "left", no_wrap=True)
    table.add_column("because", overflow="fold")
    for run in found:
        how = run.status
        step = f"{how.step}" if how.total_steps is None else f"{how.step}/{how.total_steps}"
        table.add_row(str(run.path), visible(run.task), how.state, step, how.phase or "", visible(how.because))
    out().print(table)


def report(
    run_dir: RunDir,
    as_json: AsJson = False,
    everything: Annotated[bool, typer.Option("--all", help="Print every phase, not the first and last ones.")] = False,
    baseline: Baseline = None,
) -> None:
    """Print what a run did: phases, steps, events, the final statistics and the ledger; or all figures with --json.

    With a baseline run (given here, or to hybrid train) the savings and the loss gap are measured; without one they
    are estimates, labelled as such. In JSON, null is "not measured" and a number that is none is the string "NaN" or
    "Infinity".
    """
    from trainer_core.telemetry.baselines import chosen
    from trainer_core.telemetry.journal import JournalReader
    from trainer_core.telemetry.rundir import status
    from trainer_core.telemetry.salvage import set_aside

    with closing(JournalReader(a_run(run_dir))) as reader:
        base, note = chosen(run_dir, baseline)
        if note:
            err().print(f"note: {note}")
        figures = report_of(rows(reader), base, str(run_dir))
        if status(run_dir).state == "crashed":  # the journal's last word is that it runs
            figures = msgspec.structs.replace(figures, state="crashed")
        if as_json:
            print_json(figures)
        else:
            out().print(session_log(rows(reader), figures, everything))
        if reader.damaged:
            err().print(f"note: {len(reader.damaged)} damaged rows were left out (their checksums fail)")
    for one in set_aside(run_dir):
        err().print(
            "note: an earlier journal of this run was damaged and set aside and is not in these figures; what is good "
            f"of it: hybrid export {quote(str(run_dir))} OUT.parquet --journal {one.name}"
        )


def rows(reader: "JournalReader") -> Iterator[Row]:
    """Every row of the journal, a page at a time."""
    from trainer_core.telemetry.baselines import rows_of

    return rows_of(reader)


def export(
    run_dir: RunDir,
    file: Annotated[Path | None, typer.Argument(metavar="OUT", help="OUT.parquet or OUT.csv.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every record, not only the steps.")] = False,
    kind: Annotated[
        str | None, typer.Option("--kind", help="Only records of this kind: metrics, alert-raised, command, system ...")
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option("--tensorboard", metavar="DIR", help="Write TensorBoard event files into DIR.")
    ] = None,
    journal: Annotated[
        str | None,
        typer.Option("--journal", metavar="ID", help="What is good of a journal that was damaged and set aside."),
    ] = None,
) -> None:
    """Write the records of a run, all attempts included, to a Parquet or CSV file; or its numbers for TensorBoard.

    Without --all or --kind: every step record. With --all the fields of steps are columns, and every other record is
    JSON in the column "record". In Parquet null is "not measured" and NaN is NaN; in CSV an empty cell and NaN. With
    --journal (its id, or the name of the journal.db.corrupt- file) every row is one whose checksum holds; seq begins at
    1 in every journal, so two of them never share a file.
    """
    if (file is None) == (tensorboard is None):
        raise UserError("export: give OUT.parquet, OUT.csv, or --tensorboard DIR")
    if everything and kind is not None:
        raise UserError("--all --kind: give one of the two")
    if tensorboard is not None and (everything or kind is not None):
        raise UserError(f"--tensorboard {tensorboard}: takes every number of the run; --all and --kind go with a file")
    if journal is not None:
        _say_what_is_good(a_run(run_dir), journal)
    if file is not None:
        _export_table(a_run(run_dir), file, "all" if everything else kind or "step", journal)
    elif tensorboard is not None:
        from trainer_core.telemetry.tensorboard import export_events

        written = export_events(a_run(run_dir), tensorboard, journal)
        print(f"{tensorboard}: {written:,} values  (look: tensorboard --logdir {tensorboard})")


def _say_what_is_good(run_dir: Path, journal: str) -> None:
    """How much of a journal that was set aside can be read. Raises UserError when there is none of that name."""
    from trainer_core.telemetry.salvage import opened

    with closing(opened(run_dir, journal)) as reader:
        good = sum(1 for _ in rows(reader))
        lost = f"; {len(reader.damaged)} among them are lost" if reader.damaged else ""
        err().print(f"note: {journal} was set aside: {good:,} rows up to {reader.last_seq():,} are good{lost}")


def _export_table(run_dir: Path, file: Path, kind: str, journal: str | None) -> None:
    from trainer_core.telemetry import tables

    if file.suffix not in tables.ENDINGS:
        raise UserError(f"{file}: the name must end in .parquet or .csv")
    if kind not in (tables.ALL, *tables.KINDS):
        raise UserError(f"--kind {kind}: one of {', '.join(tables.KINDS)}")
    if file.is_dir():
        raise UserError(f"{file}: is a folder; give the name of a file")
    if not file.absolute().parent.is_dir():
        raise UserError(f"{file}: there is no folder {file.absolute().parent}")
    rows = tables.export_table(run_dir, file, kind, journal=journal)
    print(f"{file}: {rows:,} records, {file.stat().st_size:,} bytes")
