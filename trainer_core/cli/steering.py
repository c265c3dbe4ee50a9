"""``hybrid send`` and ``hybrid serve``: the operator's side of a run. Knows the client, not the sockets."""

import sys
import time
import uuid
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainer_core.cli.knobs import meant
from trainer_core.cli.output import a_run, err, is_text, out, print_json, visible
from trainer_core.cli.remote import Connect, KeyFile, Listen, Target, checked, target
from trainer_core.cli.verbs import VERBS
from trainer_core.spec.commands import (
    ID_LENGTHS,
    MOST_STEPS,
    UNCONFIRMED,
    CommandRequest,
    CommandState,
    Refusal,
    danger,
    is_dangerous,
    kind_of,
)
from trainer_core.spec.errors import UserError

if TYPE_CHECKING:  # zmq is loaded by the commands that need it, so that --help is quick
    from trainer_core.telemetry.client import Client
    from trainer_core.telemetry.wire import CommandStatus

SHORT_WAIT_S = 10.0
"""How long ``send`` waits for the end of a command without ``--wait``."""
FIRST_ANSWER_S = 2.0
GRACE_S = 5.0
"""How much longer than the command's own lifetime ``--wait`` waits: what expires must be seen to expire."""
ENDED = ("finished", "stopped", "failed", "crashed")
"""States in which no trainer will apply anything."""


class Exit(IntEnum):
    """Exit codes of ``hybrid send``."""

    APPLIED = 0
    NOT_APPLIED = 3
    UNKNOWN = 4


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    width = max(len(verb.usage) for verb in VERBS.values())
    words = "\n".join(f"{verb.usage:<{width}}  {verb.meaning}" for verb in VERBS.values())
    help_text = f"{send.__doc__}\n\nCommands:\n\n\b\n{words}"  # \b: keep the lines as they are
    app.command(
        "send",
        help=help_text,
        rich_help_panel="Steer",
        context_settings={"ignore_unknown_options": True},  # a negative number is an argument
    )(send)
    app.command("serve", rich_help_panel="Steer")(serve)


def send(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The run to steer; left out with --connect.")],
    command: Annotated[str | None, typer.Argument(metavar="COMMAND", help="One of the commands below.")] = None,
    arguments: Annotated[list[str] | None, typer.Argument(metavar="ARGS", help="Its arguments.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help=f"Wait for its end, not only {SHORT_WAIT_S:g} s.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print its state as JSON.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before a dangerous command.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Your reason, for the record.")] = "",
    expect_rev: Annotated[
        int | None,
        typer.Option("--expect-rev", min=0, max=MOST_STEPS, help="Refuse it if the run's state_rev is another."),
    ] = None,
    ttl: Annotated[float, typer.Option("--ttl", help="Seconds after which it expires unapplied.")] = 60.0,
    at: Annotated[
        int | None, typer.Option("--at", min=0, max=MOST_STEPS, help="Apply it before this step; else at once.")
    ] = None,
    command_id: Annotated[
        str | None, typer.Option("--id", help="The id of an earlier try: sent twice, a command happens once.")
    ] = None,
    connect: Connect = None,
    key: KeyFile = None,
) -> None:
    """Tell a run what to do, and say what became of it. A knob of the run's own is a command, too: dropout 0.3.

    A run whose agent is not up yet is waited for, 10 s (with --wait as long as the command may live), and told then.

    Exit code: 0 applied; 2 bad input; 3 refused, failed, expired or never sent; 4 unknown (no answer, or not applied
    yet).
    """
    words = [*([command] if command is not None else []), *(arguments or [])]
    if connect is not None:  # then there is no RUN_DIR among the words
        words = [str(run_dir), *words]
    if not words:
        raise UserError(f"say what to tell {run_dir}: one of {', '.join(VERBS)}")
    run = target(None if connect is not None else run_dir, connect, key)
    command, arguments = words[0], words[1:]
    for text in (*words, reason, command_id or ""):
        if not is_text(text):
            raise UserError(f"{visible(text)}: is not UTF-8")
    if command not in VERBS:
        checked(run)  # a run that is none has no knobs, and no word of it is wrong
    order = meant(run.run_dir, command, arguments)
    why = danger(order) if is_dangerous(order) else None
    confirmed = why is not None and _confirmed(command, checked(run).where, why, yes)
    if command_id is not None and not ID_LENGTHS[0] <= len(command_id) <= ID_LENGTHS[1]:
        raise UserError(f"--id {command_id!r}: must have {ID_LENGTHS[0]} to {ID_LENGTHS[1]} characters")
    request = CommandRequest(
        command_id=command_id or uuid.uuid4().hex,
        command=order,
        expect_state_rev=expect_rev,
        at_step=at,
        ttl_s=ttl,
        reason=reason,
    )
    ask = partial(_confirmed, command, run.where, yes=yes)
    patience_s = ttl + GRACE_S if wait else SHORT_WAIT_S
    status = delivered(checked(run), request, confirmed, patience_s, ask, again=command_id is not None)
    if as_json:
        print_json(as_keys(status, command, reason))
    else:
        out().print(visible(sentence(status, command)))
    raise typer.Exit(exit_code(status))


def _confirmed(word: str, run: Path | str, why: str, yes: bool) -> bool:
    """Whether a person agreed. Raises UserError where nobody can be asked, Exit when they do not agree."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UserError(f"{word} is dangerous ({why}) and nobody can be asked here: add --yes")
    if not typer.confirm(f"{word} on {run}: {why}. Go on?", err=True):
        raise typer.Exit(Exit.NOT_APPLIED)
    return True


def delivered(
    run: Target,
    request: CommandRequest,
    confirmed: bool,
    patience_s: float,
    ask: Callable[[str], bool],
    again: bool = False,
) -> "CommandStatus":
    """Send ``request`` and follow it to its end, or for ``patience_s``; refuse it here where nobody is left to ask.

    ``ask(why)``: whether a person confirms what the run itself finds dangerous (another learning rate).
    ``again``: it may have been sent before under its id.
    """
    from trainer_core.telemetry.client import Client

    with Client(run.where, role="operator", key_file=run.key_file) as client:
        if (unsent := _unsent(client, run, request, patience_s, again)) is not None:
            return unsent
        ends = time.monotonic() + patience_s
        status = client.send(request, confirm=confirmed)
        if status.state is CommandState.RECEIVED and ask(status.detail.removeprefix(UNCONFIRMED)):
            ends = time.monotonic() + patience_s
            status = client.confirm(request.command_id)
        if status.state is None or not status.state.final:
            status = client.wait(request.command_id, max(0.0, ends - time.monotonic()))
        return status


def _unsent(
    client: "Client", run: Target, request: CommandRequest, patience_s: float, again: bool
) -> "CommandStatus | None":
    """Wait for the run's agent, no longer than the command may live; the answer when there is none to send it to."""
    begun = time.monotonic()
    may_wait_s = min(patience_s, request.ttl_s)
    told = False
    while (ended := _ended(run)) is None and not client.reach(FIRST_ANSWER_S):
        waited_s = time.monotonic() - begun
        if not waited_s < may_wait_s:  # also for a lifetime of NaN, which is the agent's to refuse
            earlier = client.status(request.command_id) if again else None
            if earlier is not None and (earlier.state is not None or run.run_dir is None):
                return earlier
            return refused_here(request, f"no agent of {run.where} answered for {waited_s:.0f} s; nothing was sent")
        if not told:
            err().print(f"no agent of {run.where} answers yet; it is waited for, up to {may_wait_s:g} s")
            told = True
    return None if ended is None else refused_here(request, ended)


def _ended(run: Target) -> str | None:
    """Why nobody will ever answer, where the run's files say so; else None."""
    from trainer_core.telemetry import rundir

    if run.run_dir is None:
        return None
    now = rundir.status(run.run_dir)
    if now.state not in ENDED or now.agent_alive:
        return None
    return f"the run has ended: {now.state} at step {now.step} ({now.because})"


def refused_here(request: CommandRequest, why: str) -> "CommandStatus":
    """The answer an agent would give for a run that has ended, when its agent has ended too."""
    from trainer_core.telemetry.wire import CommandStatus

    return CommandStatus(
        command_id=request.command_id,
        kind=kind_of(request.command),
        state=CommandState.REJECTED,
        step=None,
        phase=None,
        before=None,
        after=None,
        refusal=Refusal.RUN,
        detail=why,
        actor="",
        state_rev=None,
    )


def exit_code(status: "CommandStatus") -> Exit:
    """0 only for applied; 4 for everything that may still happen."""
    if status.state is CommandState.APPLIED:
        return Exit.APPLIED
    if status.state is not None and status.state.final:
        return Exit.NOT_APPLIED
    return Exit.UNKNOWN


def as_keys(status: "CommandStatus", word: str, note: str) -> dict[str, Any]:
    """What ``--json`` prints. ``reason`` says why it was not applied; ``note`` is the operator's own reason."""
    return {
        "command_id": status.command_id,
        "kind": word,
        "state": status.state.value if status.state is not None else "unknown",
        "step": status.step,
        "phase": status.phase,
        "before": status.before,
        "after": status.after,
        "refusal": status.refusal,
        "reason": status.detail or None,
        "note": note or None,
        "actor": status.actor,
        "state_rev": status.state_rev,
    }


def sentence(status: "CommandStatus", word: str) -> str:
    """The same for a person."""
    why = status.detail or (status.refusal.value if status.refusal is not None else "no reason given")
    match status.state:
        case None:
            return f"{word}: unknown: {status.detail or 'no answer'}; it may still be applied ({status.command_id})"
        case CommandState.APPLIED:
            change = f": {status.before} -> {status.after}" if status.after is not None else ""
            phase = f" in {status.phase}" if status.phase is not None else ""
            return f"{word}: applied at step {status.step}{phase}{change}"
        case state if state.final:
            return f"{word}: {state}: {why}"
        case state:
            return f"{word}: {state}, not applied yet ({status.command_id})"


def serve(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A live or finished run.")],
    listen: Listen = None,
) -> None:
    """Serve a run's journal to clients until Ctrl-C: what the trainer starts by itself, by hand.

    For a run whose agent is gone, or one that finished. Refused while another agent serves the run.
    """
    from trainer_core.telemetry import agent

    a_run(run_dir)
    agent.serve(run_dir, listen=listen, says=True)
