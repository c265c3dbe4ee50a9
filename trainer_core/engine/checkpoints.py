"""Checkpoints on disk: whole or not there. Knows files, not phases.

checkpoints/step-000200/  model.safetensors  state.pt (weights_only)  done.json (sizes and CRC-32 of both)
written as .tmp-step-000200, fsynced, renamed; a directory without a matching done.json is not a checkpoint
"""

import errno
import json
import math
import os
import shutil
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trainer_core.spec.errors import CheckpointError, UserError

FORMAT = 1
_MODEL, _STATE, _DONE = "model.safetensors", "state.pt", "done.json"
_MINUTE_S = 60.0
_EXTRA = "model_extra_state"
"""What of a model's state safetensors cannot hold lies in the state file under this name: what is no tensor
(``nn.Module.get_extra_state``), sparse ones, and those of a type that it does not know."""
_OTHER_TYPES = (torch.complex32, torch.complex128)


class Entry(msgspec.Struct, frozen=True):
    """One complete checkpoint on disk."""

    name: str
    step: int
    attempt: int
    good: bool
    path: Path
    bytes: int
    best: bool = False
    """Whether its validation loss was the lowest so far when it was written."""
    saved: float = 0.0
    """When it was written, seconds since the epoch."""
    removed: tuple[str, ...] = ()
    """The older ones that were deleted when it was saved."""


class Checkpoints:
    """The checkpoints of one run. ``skipped(name, because)`` is told of every damaged one that is passed over."""

    def __init__(
        self,
        directory: Path,
        keep_last: int,
        skipped: Callable[[str, str], None] = lambda n, b: None,
        *,
        keep_spaced: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._keep_last, self._keep_spaced = keep_last, keep_spaced
        self._skipped, self._clock = skipped, clock
        self._began: dict[int, tuple[int, int]] = {}

    def began(self, attempt: int, source: int, step: int) -> None:
        """An attempt went on from the checkpoint that attempt ``source`` saved at ``step``.

        What is not on the way to the newest attempt was given up: from now on it is only loaded by name.
        """
        self._began[attempt] = source, step

    def save(
        self, model: nn.Module, state: dict[str, Any], step: int, attempt: int, good: bool, best: bool = False
    ) -> Entry:
        """Write one atomically, then delete the oldest beyond ``keep_last``.

        Never the newest good or the best one, nor with ``keep_spaced`` those that ``spaced`` names.
        """
        name = f"step-{step:06d}" + (f"-a{attempt}" if attempt else "")
        temporary, final = self._directory / f".tmp-{name}", self._directory / name
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        done: dict[str, Any] = {"format": FORMAT, "step": step, "attempt": attempt, "good": good, "best": best}
        done["saved"] = self._clock()
        try:
            _write(temporary, model.state_dict(), state, done)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)  # half of it would keep what is full full
            raise
        if final.exists():
            shutil.rmtree(final)
        os.rename(temporary, final)
        _fsync(self._directory)
        return msgspec.structs.replace(_entry(final), removed=self._prune(keep=name))

    def entries(self) -> list[Entry]:
        """Complete checkpoints, oldest first by (attempt, step). Files are only checked when one is loaded."""
        found = []
        for path in self._directory.glob("step-*"):
            try:
                found.append(_entry(path))
            except CheckpointError as error:
                self._skipped(path.name, str(error))
        return sorted(found, key=lambda e: (e.attempt, e.step))

    def load(self, name: str, device: torch.device) -> tuple[Entry, dict[str, Any], dict[str, Any]]:
        """(entry, model state, engine state) of one checkpoint. Raises CheckpointError when missing or damaged."""
        path = self._directory / name
        if "/" in name or "\\" in name or not path.is_dir():
            raise CheckpointError(f"there is no checkpoint {name}; there are: {', '.join(self.names()) or 'none'}")
        entry = _entry(path)
        for file, expected in json.loads((path / _DONE).read_text())["files"].items():
            if not (path / file).is_file() or _checksum(path / file) != expected:
                raise CheckpointError(f"checkpoint {name} is damaged: {file} is not what was written")
        try:
            weights = load_file(path / _MODEL, device=str(device))
            state = torch.load(path / _STATE, map_location=device, weights_only=True)
            weights.update(state.pop(_EXTRA, {}))
        except Exception as error:  # the readers raise many kinds; whichever, this checkpoint cannot be used
            raise CheckpointError(f"checkpoint {name} cannot be read: {type(error).__name__}: {error}") from error
        return entry, weights, state

    def load_newest(self, device: torch.device, good: bool) -> tuple[Entry, dict[str, Any], dict[str, Any]]:
        """The newest checkpoint (of the good ones) that is whole and was not rolled back; damaged ones are reported."""
        for entry in reversed(self._surviving()):
            if good and not entry.good:
                continue
            try:
                return self.load(entry.name, device)
            except CheckpointError as error:
                self._skipped(entry.name, str(error))
        raise CheckpointError(f"no {'good ' if good else ''}checkpoint to go back to in {self._directory}")

    def names(self) -> list[str]:
        """Names of the complete checkpoints, oldest first."""
        return [entry.name for entry in self.entries()]

    def _surviving(self) -> list[Entry]:
        """Those on the way to the newest attempt, oldest first."""
        if not self._began:
            return self.entries()
        attempt = max(self._began)
        upto: dict[int, float] = {attempt: math.inf}
        while attempt in self._began:
            attempt, step = self._began[attempt]
            upto[attempt] = step
        return [entry for entry in self.entries() if entry.step <= upto.get(entry.attempt, -1)]

    def _prune(self, keep: str) -> tuple[str, ...]:
        entries, surviving = self.entries(), self._surviving()
        newest_good = next((e.name for e in reversed(surviving) if e.good), None)
        best = next((e.name for e in reversed(entries) if e.best), None)
        kept = {keep, newest_good, best} | (spaced(surviving) if self._keep_spaced else set())
        gone = [entry for entry in entries[: -self._keep_last] if entry.name not in kept]
        for entry in gone:
            shutil.rmtree(entry.path)
        return tuple([entry.name for entry in gone])


def spaced(entries: Sequence[Entry]) -> set[str]:
    """Names of up to three that reach back in time, whatever the pace: a fast run is through its newest in seconds.

    By age beside the newest: of those below a minute the oldest, of those below ten minutes the oldest, and the newest
    of what is older still. So, once it is old enough, there always is one between one and eleven minutes old.
    """
    if not entries:
        return set()
    now = max(entry.saved for entry in entries)
    by_age = sorted(entries, key=lambda entry: entry.saved)
    minute = [e.name for e in by_age if now - e.saved < _MINUTE_S]
    ten = [e.name for e in by_age if _MINUTE_S <= now - e.saved < 10 * _MINUTE_S]
    older = [e.name for e in by_age if now - e.saved >= 10 * _MINUTE_S]
    return {*minute[:1], *ten[:1], *older[-1:]}


def _write(folder: Path, weights: dict[str, Any], state: dict[str, Any], done: dict[str, Any]) -> None:
    """The three files of a checkpoint, on the disk when it returns. Raises OSError when the disk refuses."""
    tensors = {name: value for name, value in weights.items() if _held(value)}
    extra = {name: _plain(name, value) for name, value in weights.items() if name not in tensors}
    try:
        # safetensors refuses tensors that share memory (tied weights): each name gets its own copy.
        save_file({name: t.detach().clone().contiguous() for name, t in tensors.items()}, folder / _MODEL)
        torch.save(state | {_EXTRA: extra} if extra else state, folder / _STATE)
    except (SafetensorError, RuntimeError) as error:  # how these two writers say that the disk is full
        said = str(error).partition("\n")[0]
        raise OSError(errno.EIO, f"cannot be written ({type(error).__name__}: {said})", str(folder)) from error
    sums = {file: _checksum(folder / file) for file in (_MODEL, _STATE)}
    (folder / _DONE).write_text(json.dumps(done | {"files": sums}))
    for file in (_MODEL, _STATE, _DONE):
        _fsync(folder / file)


def _held(value: Any) -> bool:
    """Whether safetensors can hold it."""
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and not value.is_quantized
        and value.dtype not in _OTHER_TYPES
    )


def _plain(name: str, value: Any) -> Any:
    """``value``, a model's extra state, when a checkpoint can be read with it. Raises UserError when it cannot."""
    for part in value.values() if type(value) is dict else value if type(value) in (list, tuple) else ():
        _plain(name, part)
    if not isinstance(value, Tensor) and type(value) not in (dict, list, tuple, str, int, float, bool, type(None)):
        raise UserError(
            f"the model's state {name} holds a {type(value).__name__}: a checkpoint keeps tensors, numbers, texts, "
            "lists and dicts of them"
        )
    return value


def _entry(path: Path) -> Entry:
    try:
        done = json.loads((path / _DONE).read_text())
        size = sum((path / file).stat().st_size for file in done["files"])
        if done["format"] != FORMAT:
            raise CheckpointError(f"{path.name} has format {done['format']}, this version reads {FORMAT}")
        saved = float(done.get("saved") or (path / _DONE).stat().st_mtime)  # older ones do not say
        step, attempt = int(done["step"]), int(done["attempt"])
        return Entry(path.name, step, attempt, bool(done["good"]), path, size, bool(done.get("best")), saved)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path.name} is unfinished or damaged: {type(error).__name__}: {error}") from None


def _checksum(path: Path) -> list[int]:
    """[bytes, CRC-32] of a file."""
    crc = size = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc, size = zlib.crc32(block, crc), size + len(block)
    return [size, crc]


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
