"""Growing columns of numbers: the newest rows in memory, the older ones in a file without a name. Knows no drawing.

All of a run's columns are wanted at full resolution for as long as somebody looks, and they grow by 0.4 kB a step. In a
file they are no memory of this process: the system keeps of their pages what it has room for and reads the rest again.
"""

import contextlib
import ctypes
import errno
import logging
import mmap
import os
import resource
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from trainer_core.telemetry.rundir import filesystem, network_disk

F64 = npt.NDArray[np.float64]

PIECE = 8192
"""Rows of each column that are put into the file at a time: whole pages, also where a page is 64 kB."""
MOST_IN_MEMORY = 2 << 20
"""Bytes that columns may have room for before they get a file."""
ROOM_IN_FILE = 1 << 20
"""Rows that a file has room for at first. It is sparse: room takes no space on the disk."""
_M_MMAP_THRESHOLD = -3
"""Of glibc's malloc.h."""
NO_DISK = frozenset({"tmpfs", "ramfs", "devtmpfs"})
"""File systems whose files are memory."""


def return_what_is_freed() -> None:
    """Have every array of a megabyte and more returned to the system when it is freed, for the rest of the process.

    glibc raises that limit to the size of what was freed before, at most 32 MB, and then keeps the holes. Nothing is
    changed where the system's C library is another one.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)


class Scratch:
    """Where files without a name are made: nothing is left of them when the process ends, however it ends."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._said = False

    def file(self, size: int) -> IO[bytes]:
        """A sparse file of so many bytes. Raises OSError."""
        if self.folder is None:
            raise OSError(
                errno.ENOENT, "no folder for temporary files is on a disk of this machine; TMPDIR may name one"
            )
        made = tempfile.TemporaryFile(prefix="hybrid-columns-", dir=self.folder, buffering=0)  # noqa: SIM115
        try:
            if made.fileno() > resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2:
                raise OSError(errno.EMFILE, "half of the files that this process may open are open")
            made.truncate(size)
        except OSError:
            made.close()
            raise
        return made

    def write(self, file: IO[bytes], column: F64, at: int) -> None:
        """A column's bytes at a place of a file. Raises OSError."""
        rest = column.data.cast("B")
        while rest:
            written = self.put(file, rest, at)
            rest, at = rest[written:], at + written

    def put(self, file: IO[bytes], some: memoryview, at: int) -> int:
        """Some bytes, or the first of them; how many. Raises OSError."""
        return os.pwrite(file.fileno(), some, at)

    def say(self, error: OSError) -> None:
        """Once: that columns stay in memory, and why."""
        if not self._said:
            self._said = True
            where = "" if self.folder is None else f"{self.folder}: "
            logging.getLogger(__name__).warning(
                "The older rows of runs stay in memory, 0.4 kB a step: %s%s.", where, error.strerror or error
            )


def on_disk(folders: Sequence[str], mounts: str) -> Path | None:
    """The first folder whose files are no memory, by the lines of /proc/mounts.

    Nor may they be elsewhere: a network disk can tell of an error when the memory has long been given back.
    """
    real = (Path(folder).resolve() for folder in folders)
    return next((at for at in real if filesystem(at, mounts) not in NO_DISK and not network_disk(at, mounts)), None)


@cache
def usual() -> Scratch:
    """The system's folder for temporary files (``TMPDIR`` names another), or /var/tmp where that one is memory."""
    mounts = Path("/proc/self/mounts")
    return Scratch(on_disk((tempfile.gettempdir(), "/var/tmp"), mounts.read_text() if mounts.exists() else ""))


class _Backed:
    """Columns in a private mapping of a file: what is written there is this process's memory until ``seal``.

    Sealing puts whole pieces into the file and gives their memory back; then the same bytes are read from the file. So
    a view stays true, whichever thread reads it. Nothing is written through the mapping: a full disk is an error here,
    and no signal that ends the process.
    """

    def __init__(self, scratch: Scratch, columns: F64, rows: int) -> None:
        """With the rows that there are. Raises OSError."""
        self._scratch = scratch
        self._file = scratch.file(columns.shape[0] * rows * 8)
        weakref.finalize(self, self._file.close)  # views of the mapping outlive it
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)
        self.columns: F64 = np.frombuffer(self._map, dtype=np.float64).reshape(columns.shape[0], rows)
        length = columns.shape[1]
        self._sealed = self._tried = length - length % PIECE
        self._write(columns, 0, self._sealed)
        self.columns[:, self._sealed : length] = columns[:, self._sealed :]

    def seal(self, length: int) -> None:
        """Put whole pieces of the first ``length`` rows into the file. After OSError all is as it was, in memory."""
        end = length - length % PIECE
        if end == self._tried:
            return
        self._tried = end
        self._write(self.columns, self._sealed, end)
        for column in range(len(self.columns)):
            self._map.madvise(mmap.MADV_DONTNEED, self._place(column, self._sealed), 8 * (end - self._sealed))
        self._sealed = end

    def _write(self, columns: F64, first: int, end: int) -> None:
        for at, column in enumerate(columns if end > first else ()):
            self._scratch.write(self._file, column[first:end], self._place(at, first))

    def _place(self, column: int, row: int) -> int:
        return 8 * (column * int(self.columns.shape[1]) + row)


class Growing:
    """Columns of one length. Earlier prefixes are never written again, so views of them are safe."""

    def __init__(self, names: Sequence[str], scratch: Scratch | None = None) -> None:
        self.names = tuple(names)
        self.length = 0
        self._scratch = scratch or usual()
        self._held: F64 = np.empty((len(self.names), 1024))
        self._backed: _Backed | None = None

    def extend(self, rows: Sequence[Sequence[float | None]]) -> None:
        """Append rows whose values are in the order of ``names``; None becomes NaN."""
        if rows:
            end = self._room_for(len(rows))
            self._held[:, self.length : end] = np.array(rows, dtype=np.float64).T
            self.length = end

    def join(self, block: Mapping[str, F64]) -> None:
        """Append columns of one length, all names given."""
        end = self._room_for(len(block[self.names[0]]))
        for held, name in zip(self._held, self.names, strict=True):
            held[self.length : end] = block[name]
        self.length = end

    def seal(self) -> None:
        """Give the memory of older rows back, where there is a file for them. Views stay as they are."""
        if self._backed is not None:
            try:
                self._backed.seal(self.length)
            except OSError as error:
                self._scratch.say(error)

    def upto(self, length: int) -> "Growing":
        """A copy of the first ``length`` rows; this one, and every view of it, stays as it is."""
        copy = Growing(self.names, self._scratch)
        copy.join({name: column[:length] for name, column in self.columns().items()})
        return copy

    def last(self, name: str) -> float:
        """The newest value of a column; there must be one."""
        return float(self._held[self.names.index(name), self.length - 1])

    def columns(self) -> dict[str, F64]:
        """Read-only views of everything appended so far."""
        view = self._held[:, : self.length]
        view.flags.writeable = False
        return dict(zip(self.names, view, strict=True))

    def _room_for(self, count: int) -> int:
        """Make room for more rows; the length with them."""
        end, room = self.length + count, self._held.shape[1]
        if end > room:
            self._move(max(end, 2 * room))
        return end

    def _move(self, room: int) -> None:
        """All rows to where there is more room: to a file when they are many."""
        known = self._held[:, : self.length]
        if known.shape[0] * room * 8 > MOST_IN_MEMORY:
            try:
                self._backed = _Backed(self._scratch, known, max(-(-room // PIECE) * PIECE, ROOM_IN_FILE))
                self._held = self._backed.columns
                return
            except OSError as error:
                self._backed = None
                self._scratch.say(error)
        self._held = np.empty((known.shape[0], room))
        self._held[:, : self.length] = known
