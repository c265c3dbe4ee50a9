"""The agent's end of the pipe from its trainer: how many records wait to be written. Knows no socket and no lock."""

import contextlib
import os
import select


class TrainerPipe:
    """Standard input: the trainer writes its queue length once a second. Its end needs no word: the lock tells."""

    def __init__(self) -> None:
        self.queued: int | None = None
        """Records not committed yet; None when nobody says."""
        self._ended = False

    def read(self) -> None:
        """Take in what was written since; returns at once."""
        while not self._ended and select.select([0], [], [], 0)[0]:
            line = os.read(0, 4096)
            if not line:
                self._end()
                return
            with contextlib.suppress(ValueError):
                self.queued = int(line.split()[-1])

    def _end(self) -> None:
        self.queued, self._ended = None, True
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
