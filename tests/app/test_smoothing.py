"""Smoothed lines: the average of the whole series, however it came in."""

import math

import numpy as np
import pytest

from app.smoothing import MOST, Smoothed, Smoothings


def slowly(values: list[float], weight: float) -> list[float]:
    """The definition, one value at a time."""
    total, mass, found = 0.0, 0.0, []
    for value in values:
        if math.isfinite(value):
            total, mass = value + weight * total, 1.0 + weight * mass
            found.append(total / mass)
        else:
            found.append(math.nan)
    return found


@pytest.mark.parametrize("weight", [0.1, 0.6, 0.99])
@pytest.mark.parametrize("pieces", [[500], [1, 2, 3, 494], [200, 0, 300]])
def test_the_average_is_the_definition_however_the_series_grew(weight: float, pieces: list[int]) -> None:
    values = np.random.default_rng(0).normal(size=500)
    values[::7], values[3], values[499] = np.nan, np.inf, 2.0
    smoothed, end = Smoothed(weight), 0
    for piece in pieces:
        end += piece
        got = smoothed.upto(values[:end])
    np.testing.assert_allclose(got, slowly(values.tolist(), weight), rtol=1e-9)


def test_what_was_smoothed_stays_as_it_was() -> None:
    values = np.random.default_rng(0).normal(size=5000)
    smoothed = Smoothed(0.9)
    early = smoothed.upto(values[:1500]).copy()
    assert (smoothed.upto(values)[:1500] == early).all()


def test_a_series_without_a_number_has_no_average() -> None:
    assert np.isnan(Smoothed(0.5).upto(np.full(4, np.nan))).all()


def test_weight_zero_is_the_series_itself_and_old_weights_are_forgotten() -> None:
    held, values = Smoothings(), np.arange(5.0)
    assert held.of("loss", 0.0, values) is values
    for i in range(MOST + 5):
        held.of("loss", 0.5 + i / 1000, values)
    assert len(held._held) == MOST
