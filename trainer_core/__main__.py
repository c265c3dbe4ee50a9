"""``python -m trainer_core``: the same as ``hybrid``. Knows only the CLI."""

from trainer_core.cli import main

main()
