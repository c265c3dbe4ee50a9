"""CPU time of one refresh of the Live page on the server, by length of history. No browser, no socket."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from app.bench.results import Tick
from app.bench.writer import records
from app.board import Board
from app.feed import Connection
from app.screen import Ask, Screen
from app.screens.registry import PAGES
from app.store import Snapshot, Store
from trainer_core.spec.records import Row, StepRecord
from trainer_core.telemetry.rundir import RunStatus

BATCH = 10_000


class Still:
    """A feed that is moved by hand."""

    def __init__(self, store: Store) -> None:
        self.run_dir = Path("bench")
        self.status = RunStatus("working", "steps are coming")
        self.connection = Connection(live=True)
        self.store = store

    def snapshot(self) -> Snapshot:
        """The run as it is now."""
        return self.store.snapshot()


def ticks(histories: Sequence[int], times: int = 60) -> list[Tick]:
    """Medians over ``times`` refreshes, each after one more step, for histories of rising length."""
    found, store, said = [], Store(), records()
    seq = steps = 0
    batch: list[Row] = []
    for history in histories:
        while steps < history:
            record = next(said)
            seq, steps = seq + 1, steps + isinstance(record, StepRecord)
            batch.append(Row(seq, 1.7e9 + steps / 200, 0, record))
            if len(batch) >= BATCH or steps == history:
                store.append(batch)
                batch = []
        screen = Screen(Board(Still(store), PAGES["live"]))
        glances, drawings = [], []
        for _ in range(times):
            seq, steps = seq + 1, steps + 1
            store.append([Row(seq, 1.7e9 + steps / 200, 0, next(r for r in said if isinstance(r, StepRecord)))])
            begin = time.process_time()
            screen.glance(1.7e9 + steps / 200)
            middle = time.process_time()
            screen.drawings(Ask(last=1000), 0.0)
            glances.append(middle - begin)
            drawings.append(time.process_time() - middle)
        found.append(Tick(history, 1e3 * float(np.median(glances)), 1e3 * float(np.median(drawings))))
    return found
