"""How a command ends that was not simply applied. Carries none out."""

from trainer_core.spec.commands import Command, kind_of

BeforeAfter = tuple[str | None, str | None]
"""What was, and what is now, in words."""


class Refused(Exception):
    """The command cannot be carried out now; the message says why and nothing was changed."""


class Failed(Exception):
    """The command was begun and did not succeed; the message says how."""


class Half(Exception):
    """One of several commands that belong together did not succeed; what came before it was put back."""

    def __init__(self, command: Command, why: Exception) -> None:
        super().__init__(f"{kind_of(command)}: {why} (all or nothing: nothing of it was applied)")
        self.command, self.refused = command, isinstance(why, Refused)

    @property
    def whole(self) -> Refused | Failed:
        """How all of them together ended."""
        return Refused(str(self)) if self.refused else Failed(str(self))
