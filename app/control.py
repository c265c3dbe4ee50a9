"""The app's one way out: send a command, ask what became of it. Never calls a queued command a success."""

import uuid
from dataclasses import dataclass, replace
from pathlib import Path

from app.views.commands import Life, Outcome, sentence, title
from trainer_core.spec.commands import Command, CommandRequest, CommandState
from trainer_core.spec.errors import UserError
from trainer_core.telemetry.client import Client

ROLE = "operator"


@dataclass(frozen=True)
class Sent:
    """A command this browser session sent, and the last that was heard of it."""

    run: str
    request: CommandRequest
    confirm: bool
    outcome: Outcome

    @property
    def life(self) -> Life:
        """As the list shows it."""
        return Life(
            self.request.command_id,
            title(self.request.command),
            self.outcome.state,
            sentence(self.outcome),
            "",
            self.request.reason,
        )


def mint() -> str:
    """A command id, made when a form is shown: pressing twice is one command."""
    return uuid.uuid4().hex


def send(run_dir: Path, command_id: str, command: Command, reason: str = "", confirm: bool = False) -> Sent:
    """Send one command; ``confirm`` sends the second message that dangerous ones need."""
    request = CommandRequest(command_id=command_id, command=command, reason=reason)
    return ask_again(run_dir, Sent(run_dir.name, request, confirm, Outcome(None)))


def ask_again(run_dir: Path, sent: Sent) -> Sent:
    """Send the same id again: the answer is where that command stands, never a second command."""
    try:
        return replace(sent, outcome=_outcome(run_dir, sent))
    except (UserError, OSError) as error:
        return replace(sent, outcome=Outcome(None, detail=str(error)))


def _outcome(run_dir: Path, sent: Sent) -> Outcome:
    client = Client(run_dir, role=ROLE)
    try:
        heard = client.send(sent.request, confirm=sent.confirm)
    finally:
        client.close()
    return Outcome(heard.state, heard.step, heard.phase, heard.before, heard.after, heard.refusal, heard.detail)


def unsettled(sent: Sent) -> bool:
    """Whether nobody has said yet what became of it."""
    return sent.outcome.state is None or sent.outcome.state is CommandState.RECEIVED
