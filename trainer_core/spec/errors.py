"""The errors a person can mend: one clear sentence and an exit code. Knows nothing of where it is shown."""


class UserError(Exception):
    """Bad input, named: what, where, the value and what would be accepted. The CLI prints it and exits."""

    exit_code = 2


class ConfigError(UserError):
    """A configuration key, type or value that cannot be used."""


class RunError(UserError):
    """A run directory that cannot be used as asked."""

    exit_code = 1


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged or does not fit the model."""

    exit_code = 1


class TrainingFailed(UserError):
    """Training cannot go on by itself; the last good checkpoint is kept."""

    exit_code = 1
