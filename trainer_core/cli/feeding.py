"""``hybrid watch``: the records of a run as lines, as they come. Knows the follower; changes nothing, draws nothing."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from trainer_core.cli.lines import line
from trainer_core.cli.output import err, json_line, visible
from trainer_core.cli.remote import Connect, KeyFile, Target, checked, target
from trainer_core.spec.records import MetricsMeasured, RunStarted, StepRecord

if TYPE_CHECKING:  # zmq is loaded by the command, so that --help is quick
    from trainer_core.spec.records import Row
    from trainer_core.telemetry.follower import Follower
    from trainer_core.telemetry.rundir import RunStatus
    from trainer_core.telemetry.wire import Refused

POLL_S, LOOK_S, REST_S = 0.2, 1.0, 3.0
ENDED = ("finished", "stopped", "failed", "crashed")
"""States after which nothing more comes."""
BADLY = ("failed", "crashed")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("watch", rich_help_panel="Watch")(watch)


def watch(
    run_dir: Annotated[Path | None, typer.Argument(metavar="RUN_DIR", help="A live or finished run.")] = None,
    every: Annotated[int, typer.Option("--every", min=1, help="Print one step of this many.")] = 10,
    last: Annotated[
        int | None, typer.Option("--last", min=0, help="Begin with this many of the newest records; all if not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every record as one line of JSON.")] = False,
    connect: Connect = None,
    key: KeyFile = None,
) -> None:
    """Print what a run says as it says it: steps, phase changes, alerts, commands, checkpoints, and how it is doing.

    Follows the run until it ends, then says how it ended; a finished run is printed and that is all. The rows come from
    the run's agent, or from its journal where no agent answers. Ctrl-C ends the watching, not the run.

    Exit code: 0 the run finished or was stopped, or you pressed Ctrl-C; 1 it failed or crashed; 2 bad input.
    """
    from trainer_core.telemetry.follower import Follower

    run = checked(target(run_dir, connect, key))
    try:
        with Follower(run.where, key_file=run.key_file) as follower:
            if last is not None:
                follower.seq = max(0, follower.newest - last)
            say: Callable[[Row], Iterable[str]] = (
                as_json_line if as_json else as_lines(every, has_phases(follower, run))
            )
            status = _follow(follower, run, say, as_json)
            if follower.damaged:
                err().print(f"note: {len(follower.damaged)} damaged rows were left out (their checksums fail)")
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    except BrokenPipeError:  # `hybrid watch ... | head`: nobody reads any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    raise typer.Exit(1 if status.state in BADLY else 0)


def _follow(follower: "Follower", run: Target, say: "Callable[[Row], Iterable[str]]", as_json: bool) -> "RunStatus":
    """Print until the run has ended and all of it was printed; how it ended."""
    from trainer_core.telemetry.rundir import status

    said, turned_away = "", 0
    while True:
        now = status(run.run_dir) if run.run_dir is not None else follower.status()
        if now.state in ENDED:
            _print_rest(follower, say)
        if now.state != said:
            said = now.state
            _print([_state_line(now, as_json)])
        if now.state in ENDED:
            return now
        refused = follower.heartbeat.refused if follower.heartbeat is not None else None
        if refused is not None and refused.total > turned_away:
            turned_away = refused.total
            _print([_refused_line(refused, as_json)])
        looks = time.monotonic() + LOOK_S
        while time.monotonic() < looks:
            _print(text for row in follower.poll(POLL_S) for text in say(row))


def _print_rest(follower: "Follower", say: "Callable[[Row], Iterable[str]]") -> None:
    """Print up to the newest row that is committed now; damaged ones at the end are not waited for."""
    last = follower.newest
    gives_up = time.monotonic() + REST_S
    while follower.seq < last and time.monotonic() < gives_up:
        if rows := follower.poll(POLL_S):
            _print(text for row in rows for text in say(row))
            gives_up = time.monotonic() + REST_S


def _print(lines: Iterable[str]) -> None:
    for text in lines:
        print(text)
    sys.stdout.flush()


def _state_line(now: "RunStatus", as_json: bool) -> str:
    if as_json:
        return json_line({"kind": "status", **msgspec.to_builtins(now)})
    of = f" of {now.total_steps}" if now.total_steps is not None else ""
    return visible(f"== {now.state} at step {now.step}{of}: {now.because}")


def _refused_line(refused: "Refused", as_json: bool) -> str:
    """What the agent has turned away so far."""
    counts: dict[str, int] = msgspec.to_builtins(refused)
    if as_json:
        return json_line({"kind": "refused", **counts})
    return "== turned away so far: " + ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def as_json_line(row: "Row") -> Iterator[str]:
    """One record: seq, time, attempt, and the record's own fields with its kind."""
    head = {"seq": row.seq, "time": row.time, "attempt": row.attempt}
    yield json_line({**head, **msgspec.to_builtins(row.record)})


def has_phases(follower: "Follower", run: Target) -> bool:
    """Whether the run has phases: not when it is a loop that a Monitor watches."""
    from trainer_core.telemetry.journal import JournalReader

    if run.run_dir is None:
        now = follower.status()
        return now.phase is not None or now.step == 0
    with closing(JournalReader(run.run_dir)) as reader:
        return not any(getattr(row.record, "own_loop", False) for row in reader.events("run-started", newest=1))


class Thinned:
    """One step of ``every``: the first that is told of at or after each multiple of it, with all that is said of it."""

    def __init__(self, every: int) -> None:
        self._every, self._last, self._shown = every, 0, False

    def shows(self, step: int) -> bool:
        """Whether what is said of ``step`` now is shown."""
        if step != self._last:
            self._shown = step // self._every != self._last // self._every
            self._last = step
        return self._shown


def as_lines(every: int, phases: bool = True) -> "Callable[[Row], Iterator[str]]":
    """Records as lines for people, with the time of day and one step of ``every``."""
    thinned = Thinned(every)

    def lines(row: "Row") -> Iterator[str]:
        nonlocal phases
        if isinstance(row.record, RunStarted):
            phases = not row.record.own_loop
        if isinstance(row.record, StepRecord | MetricsMeasured) and not thinned.shows(row.record.step):
            return
        text = line(row.record, phases)
        if text is not None:
            yield f"{time.strftime('%H:%M:%S', time.localtime(row.time))}  {visible(text)}"

    return lines
