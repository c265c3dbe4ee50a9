"""Checkpoints on disk: whole or not there. Knows files, not phases.

checkpoints/step-000200/  model.safetensors  state.pt (weights_only)  done.json (sizes and CRC-32 of both)
written as .tmp-step-000200, fsynced, renamed; a directory without a matching done.json is not a checkpoint
"""

import json
import math
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from trainer_core.spec.errors import CheckpointError

FORMAT = 1
_MODEL, _STATE, _DONE = "model.safetensors", "state.pt", "done.json"


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


class Checkpoints:
    """The checkpoints of one run. ``skipped(name, because)`` is told of every damaged one that is passed over."""

    def __init__(
        self, directory: Path, keep_last: int, skipped: Callable[[str, str], None] = lambda n, b: None
    ) -> None:
        self._directory = directory
        self._keep_last = keep_last
        self._skipped = skipped
        self._began: dict[int, tuple[int, int]] = {}

    def began(self, attempt: int, source: int, step: int) -> None:
        """An attempt went on from the checkpoint that attempt ``source`` saved at ``step``.

        What is not on the way to the newest attempt was given up: from now on it is only loaded by name.
        """
        self._began[attempt] = source, step

    def save(
        self, model: nn.Module, state: dict[str, Any], step: int, attempt: int, good: bool, best: bool = False
    ) -> Entry:
        """Write one atomically, then delete the oldest beyond ``keep_last``: never the newest good or the best one."""
        name = f"step-{step:06d}" + (f"-a{attempt}" if attempt else "")
        temporary, final = self._directory / f".tmp-{name}", self._directory / name
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        # safetensors refuses tensors that share memory (tied weights): each name gets its own copy.
        save_file({k: v.detach().clone().contiguous() for k, v in model.state_dict().items()}, temporary / _MODEL)
        torch.save(state, temporary / _STATE)
        sums = {file: _checksum(temporary / file) for file in (_MODEL, _STATE)}
        done = {"format": FORMAT, "step": step, "attempt": attempt, "good": good, "best": best, "files": sums}
        (temporary / _DONE).write_text(json.dumps(done))
        for file in (_MODEL, _STATE, _DONE):
            _fsync(temporary / file)
        if final.exists():
            shutil.rmtree(final)
        os.rename(temporary, final)
        _fsync(self._directory)
        self._prune(keep=name)
        return _entry(final)

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

    def _prune(self, keep: str) -> None:
        entries = self.entries()
        newest_good = next((e.name for e in reversed(self._surviving()) if e.good), None)
        best = next((e.name for e in reversed(entries) if e.best), None)
        for entry in entries[: -self._keep_last]:
            if entry.name not in (keep, newest_good, best):
                shutil.rmtree(entry.path)


def _entry(path: Path) -> Entry:
    try:
        done = json.loads((path / _DONE).read_text())
        size = sum((path / file).stat().st_size for file in done["files"])
        if done["format"] != FORMAT:
            raise CheckpointError(f"{path.name} has format {done['format']}, this version reads {FORMAT}")
        return Entry(
            path.name, int(done["step"]), int(done["attempt"]), bool(done["good"]), path, size, bool(done.get("best"))
        )
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
