"""The ``hybrid`` command: its words, flags and exit codes. Knows every floor by name, imports torch only to train."""

import errno
import os
import sys
from typing import Annotated

import typer

from trainer_core import __version__
from trainer_core.cli import benches, configuration, feeding, keys, reading, steering, training, watching
from trainer_core.cli.output import open_streams
from trainer_core.spec.errors import UserError

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE)
"""What writing to standard output may come to."""
app = typer.Typer(
    name="hybrid",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Hybrid predictive training: run it, watch it in the browser, steer it, read what it did.",
    epilog="Start with: hybrid demo",
)
training.add_to(app)
watching.add_to(app)
feeding.add_to(app)
steering.add_to(app)
keys.add_to(app)
reading.add_to(app)
configuration.add_to(app)
benches.add_to(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"hybrid {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of ``hybrid`` itself."""


def main() -> None:
    """Run the command line. What a person can mend is one sentence on stderr and an exit code, not a traceback."""
    open_streams()
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # here, where it can still be said that it failed
    except UserError as error:
        print(f"hybrid: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno in _UNWRITABLE and error.filename is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered has nowhere to go
            if error.errno != errno.EPIPE:  # nobody reads any more: `hybrid ... | head`
                print(f"hybrid: the output cannot be written: {error.strerror}", file=sys.stderr)
            sys.exit(1)
        if error.filename is None:  # not about a file that somebody named
            raise
        print(f"hybrid: {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(1)
