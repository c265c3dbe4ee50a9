"""The errors a person can mend: one clear sentence and an exit code. Knows nothing of where it is shown.

Exit code 2: what was given (a flag, a value, a file, a directory) is missing, or is not what is needed. 1: it is what
is needed, and it or the machine failed.
"""


class UserError(Exception):
    """Bad input, named: what, where, the value and what would be accepted. The CLI prints it and exits."""

    exit_code = 2


class ConfigError(UserError):
    """A configuration key, type or value that cannot be used."""


class RunError(UserError):
    """A run that fails what was asked of it: in use, damaged, of another version, or it does not answer."""

    exit_code = 1


class WrongRun(RunError):
    """A directory that holds no run, or another than what was asked for goes with."""

    exit_code = 2


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged or does not fit the model."""

    exit_code = 1


class TrainingFailed(UserError):
    """Training cannot go on by itself; the last good checkpoint is kept."""

    exit_code = 1


LOOP_ENDED = ("stopped", "the training loop ended")
"""(state, because) of a trainer that was closed before it had reached anything that ends a run."""


def last_word(error: BaseException) -> tuple[str, str]:
    """(state, because) of a run whose program ended by ``error``: stopped where somebody meant it to, else failed."""
    if isinstance(error, KeyboardInterrupt):
        return "stopped", "interrupted from the keyboard"
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return "stopped", "the program ended itself, with exit code 0"
    return "failed", f"{type(error).__name__}: {error}"
