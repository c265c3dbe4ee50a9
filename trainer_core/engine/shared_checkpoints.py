"""Checkpoints of a run of several ranks: rank 0 alone has the files, all get what is in them. Knows no phases.

A checkpoint holds each rank's own random numbers; all else is the same on every rank, and rank 0's is saved.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer_core.engine.checkpoints import Checkpoints, Entry
from trainer_core.engine.distributed import Ranks
from trainer_core.spec.config import CheckpointConfig
from trainer_core.spec.errors import CheckpointError

Loaded = tuple[Entry, dict[str, Any], dict[str, Any]]


class SharedCheckpoints(Checkpoints):
    """Every method is a collective: all ranks call it, and all get rank 0's answer or its error."""

    def __init__(
        self,
        ranks: Ranks,
        directory: Path,
        keep_last: int,
        skipped: Callable[[str, str], None] = lambda n, b: None,
        *,
        keep_spaced: bool = False,
    ) -> None:
        super().__init__(directory, keep_last, skipped)
        self._ranks = ranks
        self._files = Checkpoints(directory, keep_last, skipped, keep_spaced=keep_spaced)
        """Asked on rank 0 alone."""

    def began(self, attempt: int, source: int, step: int) -> None:
        """As for one process; asks nobody."""
        self._files.began(attempt, source, step)

    def save(
        self, model: nn.Module, state: dict[str, Any], step: int, attempt: int, good: bool, best: bool = False
    ) -> Entry:
        """Rank 0 writes one; the others wait for it."""
        random = self._ranks.collect(_encoded(state["engine"]["random"]))
        state = state | {"ranks": [torch.frombuffer(bytearray(each), dtype=torch.uint8) for each in random]}
        told = self._ranks.as_first(lambda: _plain(self._files.save(model, state, step, attempt, good, best)))
        return _entry(told)

    def entries(self) -> list[Entry]:
        """Complete checkpoints on rank 0's disk, oldest first."""
        return [_entry(told) for told in self._ranks.as_first(lambda: [_plain(e) for e in self._files.entries()])]

    def load(self, name: str, device: torch.device) -> Loaded:
        """One checkpoint, on every rank. Raises CheckpointError on all of them when it cannot be used."""
        return self._loaded(lambda: self._files.load(name, device), device)

    def load_newest(self, device: torch.device, good: bool) -> Loaded:
        """The newest whole one, on every rank."""
        return self._loaded(lambda: self._files.load_newest(device, good), device)

    def _loaded(self, read: Callable[[], Loaded], device: torch.device) -> Loaded:
        found: list[Loaded] = []

        def read_here() -> dict[str, Any]:
            found.append(read())
            size = len(found[0][2].get("ranks", ())) or 1
            if size != self._ranks.size:
                raise CheckpointError(
                    f"checkpoint {found[0][0].name} was written by {size} ranks and cannot be loaded by "
                    f"{self._ranks.size}"
                )
            return _plain(found[0][0])

        entry = _entry(self._ranks.as_first(read_here))
        weights, state = found[0][1:] if found else ({}, {})
        sent = self._ranks.tell(_encoded(weights) if found else b"")
        weights = weights if found else _decoded(sent, device)
        sent = self._ranks.tell(_encoded(state) if found else b"")
        state = state if found else _decoded(sent, device)
        own: Tensor = state["ranks"][self._ranks.rank]
        random = _decoded(own.cpu().numpy().tobytes(), torch.device("cpu"))
        return entry, weights, state | {"engine": state["engine"] | {"random": random}}


def store(
    ranks: Ranks | None, directory: Path, config: CheckpointConfig, skipped: Callable[[str, str], None]
) -> Checkpoints:
    """The checkpoints of a run of one process or, with ``ranks``, of several."""
    if ranks is None:
        return Checkpoints(directory, config.keep_last, skipped, keep_spaced=config.keep_spaced)
    return SharedCheckpoints(ranks, directory, config.keep_last, skipped, keep_spaced=config.keep_spaced)


def _plain(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in Entry.__struct_fields__} | {"path": str(entry.path)}


def _entry(told: dict[str, Any]) -> Entry:
    return Entry(**(told | {"path": Path(told["path"]), "removed": tuple(told["removed"])}))


def _encoded(state: Any) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def _decoded(data: bytes, device: torch.device) -> Any:
    return torch.load(io.BytesIO(data), map_location=device, weights_only=True)
