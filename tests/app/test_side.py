"""Layers, the machine and named metrics: bounded, exact where it matters, gone back with a rollback."""

import math

import numpy as np
import polars as pl
import pytest

from app.layers import BUCKETS, LayerHistory
from app.side import MOST_METRICS
from app.store import Store
from tests.app.rows import Script
from trainer_core.spec.surroundings import GpuMeasured, MetricsMeasured, SystemMeasured


def test_the_largest_norm_of_every_stretch_survives_any_length() -> None:
    history, norms = LayerHistory(), np.random.default_rng(0).random((5000, 3)).astype(np.float32)
    for step in range(5000):
        history.add([step + 1], [norms[step]])
    found = history.frozen(("a", "b", "c"))
    assert found.width == 32 and len(found.largest) <= BUCKETS
    for i in range(len(found.largest)):
        inside = norms[max(0, i * 32 - 1) : (i + 1) * 32 - 1]
        np.testing.assert_array_equal(found.largest[i], inside.max(axis=0))
    np.testing.assert_array_equal(found.now, norms[-1])
    assert found.step == 5000


@pytest.mark.parametrize("pieces", [1, 7])
def test_columns_make_the_same_as_steps_one_by_one(pieces: int) -> None:
    steps = [*range(1, 700), *range(650, 900)]  # a rollback in the middle
    norms = [
        None if step % 5 == 0 else [step / 10, float(step % 3), math.nan if step == 321 else 1.0] for step in steps
    ]
    one, other = LayerHistory(), LayerHistory()
    for step, row in zip(steps, norms, strict=True):
        if row is not None:
            one.add([step], [row])
    table = pl.DataFrame(
        {"step": steps, "layer_grad_norms": norms}, schema_overrides={"layer_grad_norms": pl.List(pl.Float32)}
    )
    for piece in np.array_split(np.arange(len(steps)), pieces):
        other.extend(table[int(piece[0]) : int(piece[-1]) + 1])
    left, right = one.frozen("abc"), other.frozen("abc")
    np.testing.assert_array_equal(left.largest, right.largest)
    np.testing.assert_array_equal(left.now, right.now)
    assert np.isinf(left.largest[321 // left.width, 2]), "a norm that is no number is not lost"


def test_another_model_at_a_later_step_begins_anew() -> None:
    history = LayerHistory()
    history.add([290], [(1.0, 2.0)])
    history.add([280], [(1.0, 2.0, 3.0)])
    found = history.frozen(("a", "b", "c"))
    assert found.step == 280 and found.now.tolist() == [1.0, 2.0, 3.0]
    assert np.nanmax(found.largest) == 3.0


def test_layers_without_names_are_numbered() -> None:
    history = LayerHistory()
    assert history.frozen(()).empty
    history.add([1], [(1.0, 2.0)])
    assert history.frozen(("one",)).names == ("layer 0", "layer 1")


def test_the_machine_is_kept_as_columns() -> None:
    script, store = Script().start().steps(1), Store()
    gpus = (GpuMeasured(0, "x", 0.5, 1, 4, 60.0, 100.0), GpuMeasured(1, "x", 0.7, 3, 4, 70.0, None))
    script.say(SystemMeasured(1, cpu=1.5, memory_used=1, memory_total=2, gpus=gpus))
    script.say(SystemMeasured(1))
    store.append(script.rows)
    side = store.snapshot().side
    assert side.newest == SystemMeasured(1)
    first = {name: column[0] for name, column in side.system.columns.items()}
    assert (first["cpu"], first["memory_share"], first["gpu"]) == (1.5, 0.5, 0.6)
    assert (first["gpu_memory"], first["gpu_temperature"], first["gpu_power"]) == (0.75, 70.0, 100.0)
    assert np.isnan(side.system["cpu"][1])


def test_named_metrics_are_kept_by_name_up_to_a_bound() -> None:
    script, store = Script().start(), Store()
    for step in range(3):
        script.say(MetricsMeasured(step, {"accuracy": step / 10, "bad": math.nan}))
    script.say(MetricsMeasured(3, {f"m{i}": 1.0 for i in range(MOST_METRICS)}))
    store.append(script.rows)
    side = store.snapshot().side
    assert side.metrics["accuracy"]["value"].tolist() == [0.0, 0.1, 0.2]
    assert np.isnan(side.metrics["bad"]["value"]).all()
    assert len(side.metrics) == MOST_METRICS and side.left_out == 2
