"""Columns that outgrow memory: the same rows, wherever they lie, and no memory for the older ones."""

import errno
import gc
import logging
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import polars as pl
import pytest

from app import columns
from app.columns import F64, PIECE, Growing, Scratch, on_disk
from app.kept import FIRST, NEWEST, Kept
from app.smoothing import Smoothed
from app.store import MEASURED, PATH_COLUMNS, STEP_COLUMNS, Store
from app.table import Table
from tests.app.rows import Script
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import MetricsMeasured, PhaseChanged, PredictionEnded, Row
from trainer_core.telemetry.history import Chunk

NAMES = tuple(f"column_{i}" for i in range(40))


def block(first: int, count: int) -> dict[str, F64]:
    """Rows that tell their number and their column."""
    return {name: np.arange(first, first + count) + i / 64 for i, name in enumerate(NAMES)}


def own_memory() -> int:
    """Bytes of this process that are in memory and in no file."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def own_memory_of(array: F64) -> int:
    """The same of the mapping that an array lies in."""
    at = array.__array_interface__["data"][0]
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if head := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(head[1], 16) <= at < int(head[2], 16)
        elif inside and line.startswith("Anonymous:"):
            return 1024 * int(line.split()[1])
    raise AssertionError("no mapping has this array")


class Disk(Scratch):
    """One that can be full, and takes little at a time."""

    full = False
    asked = 0
    """Times that something was to be put into a file."""

    def put(self, file: IO[bytes], some: memoryview, at: int) -> int:
        self.asked += 1
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().put(file, some[:10_000], at)


def open_files() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def grow(growing: Growing, count: int) -> None:
    growing.join(block(growing.length, count))
    growing.seal()


def whole(growing: Growing) -> bool:
    wanted = block(0, growing.length)
    return all(np.array_equal(held, wanted[name]) for name, held in growing.columns().items())


def test_rows_and_views_stay_the_same_wherever_they_are_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "ROOM_IN_FILE", 2 * PIECE)
    growing, views = Growing(NAMES, Scratch(tmp_path)), list[dict[str, F64]]()
    for count in (1, 1000, 5000, PIECE, 1, 3 * PIECE - 7, 0, 40_000, 1, 100_000):
        grow(growing, count)
        growing.extend([[value[0] for value in block(growing.length, 1).values()]])
        views.append(growing.columns())
        assert whole(growing)
    wanted = block(0, growing.length)
    for view in views:
        for name, held in view.items():
            assert not held.flags.writeable and np.array_equal(held, wanted[name][: len(held)])
    assert growing.last("column_3") == growing.length - 1 + 3 / 64
    copy = growing.upto(50_000)
    grow(copy, 10)
    assert copy.length == 50_010 and whole(copy) and whole(growing)


def test_a_column_that_waits_in_memory_is_marked_as_absent_like_one_in_a_file() -> None:
    growing = Growing(("a", "b"))
    growing.extend([(1.0, None), (None, 2.0)])
    assert np.array_equal(growing.columns()["a"], [1.0, np.nan], equal_nan=True)
    assert np.array_equal(growing.columns()["b"], [np.nan, 2.0], equal_nan=True)


def test_older_rows_are_no_memory_of_this_process(tmp_path: Path) -> None:
    growing = Growing(NAMES, Scratch(tmp_path))
    for _ in range(30):
        grow(growing, 10_000)
        assert own_memory_of(growing.columns()["column_0"]) <= len(NAMES) * 8 * (PIECE + 512)
    assert whole(growing)


def a_chunk(first: int, count: int) -> Chunk:
    """Steps with every number, a metric of the user's own with each tenth, and a phase change with each twentieth."""
    step = np.arange(first, first + count, dtype=np.float64)
    names = (*MEASURED, "seq", "time", "attempt", "phase")
    table = {name: step if name in ("step", "seq") else np.sin(step) for name in names}
    table |= {"attempt": np.zeros(count), "phase": np.zeros(count)}
    norms = pl.Series("layer_grad_norms", [None] * count, dtype=pl.List(pl.Float64))
    rows = [Row(n, float(n), 0, MetricsMeasured(n, {"accuracy": 0.5})) for n in range(first, first + count, 10)]
    changed = PhaseChanged(first, Phase.FULL, Phase.FULL, ("because",), 1, 5)
    rows += [Row(n, float(n), 0, changed) for n in range(first + 5, first + count, 20)]
    rows.sort(key=lambda row: row.seq)
    return Chunk(pl.DataFrame(table).with_columns(norms), rows, None, first + count - 1)


def test_a_store_of_300_000_steps_takes_no_more_memory_than_one_of_20_000() -> None:
    store = Store()
    for first in range(1, 20_001, 10_000):
        store.extend(a_chunk(first, 10_000))
    store.snapshot().steps.smoothed("loss", 0.9)
    gc.collect()
    before = own_memory()
    for first in range(20_001, 300_001, 10_000):
        store.extend(a_chunk(first, 10_000))
        store.snapshot().steps.smoothed("loss", 0.9)
    gc.collect()
    size = 280_000 * 8 * (len(STEP_COLUMNS) + len(PATH_COLUMNS))
    assert own_memory() - before < size / 4
    steps, path = store.snapshot().steps, store.snapshot().path
    assert steps.length == path.length == 300_000
    for table, width in ((steps, len(STEP_COLUMNS)), (path, len(PATH_COLUMNS))):
        assert own_memory_of(table["step"]) <= width * 8 * (PIECE + 512)
        assert np.array_equal(table["step"], np.arange(1.0, 300_001))
    assert np.array_equal(steps["grad_norm"], np.sin(np.arange(1.0, 300_001)))


def test_rows_that_come_one_by_one_are_put_away_too() -> None:
    store, script = Store(), Script().start().steps(20_000, predicted_loss=0.5)
    for at in range(0, len(script.rows), 500):
        store.append(script.rows[at : at + 500])
    steps: Table = store.snapshot().steps
    assert steps.length == 20_000
    assert own_memory_of(steps["step"]) <= len(STEP_COLUMNS) * 8 * (PIECE + 512)


def test_a_metric_of_ones_own_and_a_smoothed_line_are_put_away_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "MOST_IN_MEMORY", 1 << 16)
    store = Store()
    for first in range(1, 300_001, 100_000):
        store.extend(a_chunk(first, 100_000))
    metric = store.snapshot().side.metrics["accuracy"]
    assert metric.length == 30_000 and own_memory_of(metric["value"]) <= 5 * 8 * (PIECE + 512)
    smoothed = Smoothed(0.5)
    for end in range(1000, 40_000, 1000):
        line = smoothed.upto(np.ones(end))
    assert own_memory_of(line) <= 2 * 8 * (PIECE + 512) and np.allclose(line, 1.0), "with the weight of each"


def test_a_full_disk_costs_memory_and_no_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk(tmp_path)
    growing = Growing(NAMES, disk)
    grow(growing, 20_000)
    disk.full = True
    with caplog.at_level(logging.WARNING):
        for _ in range(8):
            grow(growing, 5_000)
    assert whole(growing)
    assert own_memory_of(growing.columns()["column_0"]) >= len(NAMES) * 8 * 4 * PIECE
    said = "The older rows of runs stay in memory, 0.4 kB a step: {}: No space left on device."
    assert caplog.messages == [said.format(tmp_path)]
    disk.full = False
    grow(growing, PIECE)
    assert whole(growing), "there is room again"
    assert own_memory_of(growing.columns()["column_0"]) <= len(NAMES) * 8 * (PIECE + 512)


def test_a_full_disk_is_asked_once_for_every_piece_and_not_at_every_look(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    growing = Growing(NAMES, disk)
    grow(growing, 20_000)
    disk.full, before = True, disk.asked
    grow(growing, PIECE)
    for _ in range(5):
        growing.seal()
    assert disk.asked == before + 1, "a piece that found no room is not tried again before the next one is whole"
    grow(growing, PIECE)
    growing.seal()
    assert disk.asked == before + 2
    disk.full = False
    grow(growing, PIECE)
    growing.seal()
    asked = disk.asked
    growing.seal()
    assert disk.asked == asked > before + 2, "and what has been put away is not put there again"


def test_room_of_an_odd_size_is_given_back_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "ROOM_IN_FILE", PIECE)
    growing = Growing(NAMES, Scratch(tmp_path))
    for count in (20_001, 10_000, 9_000):  # the last of them fits into the room there is
        grow(growing, count)
    assert whole(growing)
    assert own_memory_of(growing.columns()["column_0"]) <= len(NAMES) * 8 * (PIECE + 512)


def test_a_copy_of_the_first_rows_goes_its_own_way() -> None:
    growing = Growing(("a",))
    growing.extend([(1.0,), (2.0,), (3.0,)])
    copy = growing.upto(2)
    copy.extend([(9.0,)])
    assert growing.columns()["a"].tolist() == [1.0, 2.0, 3.0] and copy.columns()["a"].tolist() == [1.0, 2.0, 9.0]


def test_rows_that_come_one_by_one_are_seldom_moved() -> None:
    growing, places = Growing(("a",)), list[object]()
    for row in range(10_000):
        growing.extend([(float(row),)])
        base = growing.columns()["a"].base
        if not places or places[-1] is not base:
            places.append(base)
    assert len(places) <= 5, "room doubles: 1,024 to 16,384 rows"


def test_a_disk_that_is_full_when_columns_must_move_costs_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "ROOM_IN_FILE", 4 * PIECE)
    disk, files = Disk(tmp_path), open_files()
    growing = Growing(NAMES, disk)
    grow(growing, 3 * PIECE)
    before = growing.columns()
    disk.full = True
    grow(growing, 2 * PIECE)
    assert whole(growing) and np.array_equal(before["column_1"], growing.columns()["column_1"][: 3 * PIECE])
    del before
    assert open_files() == files, "the file that was too small is gone"
    disk.full = False
    grow(growing, 9 * PIECE)
    assert whole(growing)
    assert own_memory_of(growing.columns()["column_0"]) <= len(NAMES) * 8 * (PIECE + 512)


@pytest.mark.parametrize("folder", [None, Path("/nowhere")])
def test_without_a_folder_on_a_disk_rows_stay_in_memory(folder: Path | None, caplog: pytest.LogCaptureFixture) -> None:
    growing = Growing(NAMES, Scratch(folder))
    grow(growing, 20_000)
    grow(growing, 100_000)
    assert whole(growing) and len(caplog.messages) == 1
    assert ("TMPDIR" if folder is None else "/nowhere: No such file or directory") in caplog.text


def test_a_folder_that_is_memory_or_elsewhere_is_passed_over(tmp_path: Path) -> None:
    mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/vdb /tmp/disk xfs rw 0 0\ntmpfs /var ramfs rw 0 0\n"
    assert on_disk(("/tmp", "/usr"), mounts) == Path("/usr")
    assert on_disk(("/tmp/disk/a", "/usr"), mounts) == Path("/tmp/disk/a")
    assert on_disk(("/tmp", "/var/a"), mounts) is None
    assert on_disk(("/tmp", "/far/a"), mounts + "host:/export /far nfs4 rw 0 0\n") is None
    assert on_disk((str(tmp_path),), "") == tmp_path.resolve()


@contextmanager
def few_files(soft: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_files_that_sockets_need_are_left_to_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    growing = Growing(NAMES, Scratch(tmp_path))
    next_one = os.open(tmp_path, os.O_RDONLY)
    os.close(next_one)
    with few_files(2 * next_one - 2 if next_one > 1 else 2):
        grow(growing, 20_000)
    assert whole(growing) and "half of the files" in caplog.text


def test_nothing_is_left_in_the_folder_and_no_file_stays_open(tmp_path: Path) -> None:
    before = open_files()
    growing = Growing(NAMES, Scratch(tmp_path))
    grow(growing, 20_000)
    view = growing.columns()["column_2"]
    assert os.listdir(tmp_path) == [] and open_files() > before
    del growing
    gc.collect()
    assert np.array_equal(view, block(0, 20_000)["column_2"]), "a snapshot outlives its store"
    del view
    assert open_files() == before


def test_large_arrays_are_returned_to_the_system_when_they_are_freed() -> None:
    script = """
import re, sys
from pathlib import Path
import numpy as np
from app.columns import return_what_is_freed
def own():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024
return_what_is_freed()
np.ones(1_000_000)  # freed: by itself glibc would keep what is smaller from now on
kept = [(np.ones(900_000), np.ones(5_000)) for _ in range(30)]
held = own()
kept = [small for _, small in kept]
print(held, own())
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60).stdout
    held, left = map(int, said.split())
    assert held - left > 150, "30 arrays of 7 MB, with something small after each"


def test_of_what_comes_with_every_cycle_the_first_and_the_newest_are_kept() -> None:
    kept, most = Kept(), NEWEST[PhaseChanged]
    for seq in range(1, 10_001):
        changed = PhaseChanged(seq, Phase.FULL, Phase.PREDICT, ("because",), seq, 5)
        assert kept.add(Row(2 * seq, 0.0, 0, changed))
        ended = PredictionEnded(seq, seq, False, 5, "harm", None, None, None, None)
        assert kept.add(Row(2 * seq + 1, 0.0, 0, ended))
        if seq % 97 == 0:
            assert kept.frozen()[PhaseChanged][-1].seq == 2 * seq
    rows = [row.seq // 2 for row in kept.frozen()[PhaseChanged]]
    assert FIRST + most <= len(rows) <= FIRST + 2 * most
    assert rows[:FIRST] == list(range(1, FIRST + 1)) and rows[-most:] == list(range(10_001 - most, 10_001))
    assert len(kept.frozen()[PredictionEnded]) == 10_000, "an undone prediction is a mark in the charts, however old"
