"""How a command ends that was not simply applied. Knows no command."""

BeforeAfter = tuple[str | None, str | None]
"""What was, and what is now, in words."""


class Refused(Exception):
    """The command cannot be carried out now; the message says why and nothing was changed."""


class Failed(Exception):
    """The command was begun and did not succeed; the message says how."""
