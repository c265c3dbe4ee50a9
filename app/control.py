"""The app's one way out: send a command, ask what became of it. Never calls a queued command a success.

Whether this browser may steer is asked here, at the moment of sending: a page that shows a button is no right.
"""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from app.steering import right
from app.views.commands import Life, Outcome, sentence, title
from trainer_core.spec.commands import Command, CommandRequest, CommandState, Refusal
from trainer_core.spec.errors import UserError
from trainer_core.telemetry.client import Client
from trainer_core.telemetry.wire import CommandStatus

Ask = Callable[[Client], CommandStatus]
ROLE = "operator"
MOST_WHOM = 200
"""Characters of ``on_behalf_of``."""
ASK_FOR_S = 90.0
"""How long an unknown command is asked about: longer than its usual time to live."""


@dataclass(frozen=True)
class How:
    """How a command is sent, beside what it says."""

    reason: str = ""
    at_step: int | None = None
    ttl_s: float = 60.0
    expect_state_rev: int | None = None


@dataclass(frozen=True)
class Sent:
    """A command this browser session sent, and the last that was heard of it."""

    run: str
    request: CommandRequest
    confirm: bool
    outcome: Outcome
    sent_at: float = 0.0
    """Monotonic seconds."""

    @property
    def life(self) -> Life:
        """As the list shows it."""
        request = self.request
        said = sentence(self.outcome)
        return Life(request.command_id, title(request.command), self.outcome.state, said, "", request.reason)


def mint() -> str:
    """A command id, made when a form is shown: pressing twice is one command."""
    return uuid.uuid4().hex


def send(
    run_dir: Path, command_id: str, command: Command, reason: str = "", confirm: bool = False, how: How | None = None
) -> Sent:
    """Send one command; ``confirm`` sends the second message that dangerous ones need.

    Refused here, unsent, where this browser may not steer.
    """
    how, mine = how or How(reason), right()
    whom = mine.who[:MOST_WHOM]
    request = CommandRequest(command_id, command, how.expect_state_rev, how.at_step, how.ttl_s, how.reason[:2000], whom)
    sent = Sent(run_dir.name, request, confirm, Outcome(None), time.monotonic())
    if not mine.steers:
        return replace(sent, outcome=Outcome(CommandState.REJECTED, refusal=Refusal.AUTH, detail=mine.why))
    return _heard(run_dir, sent, lambda client: client.send(request, confirm=confirm))


def ask_again(run_dir: Path, sent: Sent) -> Sent:
    """Ask where a command stands. It is never sent again: what became of it may only be unheard."""
    return _heard(run_dir, sent, lambda client: client.status(sent.request.command_id))


def confirm(run_dir: Path, sent: Sent) -> Sent:
    """Send the second message of a command that waits for it. Refused here where this browser may not steer."""
    mine = right()
    if not mine.steers:
        return replace(sent, outcome=Outcome(CommandState.REJECTED, refusal=Refusal.AUTH, detail=mine.why))
    return _heard(run_dir, replace(sent, confirm=True), lambda client: client.confirm(sent.request.command_id))


def _heard(run_dir: Path, sent: Sent, ask: Ask) -> Sent:
    try:
        client = Client(run_dir, role=ROLE)
        try:
            heard = ask(client)
        finally:
            client.close()
    except (UserError, OSError) as error:
        return replace(sent, outcome=Outcome(None, detail=str(error)))
    seen = Outcome(heard.state, heard.step, heard.phase, heard.before, heard.after, heard.refusal, heard.detail)
    return replace(sent, outcome=seen)


def unsettled(sent: Sent, now: float) -> bool:
    """Whether nobody has said yet what became of it, and asking may still bring it; ``now``: monotonic seconds."""
    open_ = sent.outcome.state in (None, CommandState.RECEIVED, CommandState.ACCEPTED)
    return open_ and now - sent.sent_at < max(ASK_FOR_S, sent.request.ttl_s + 30.0)
