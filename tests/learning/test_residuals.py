"""Claims about the residual store: which are selected, with what weights, what they add up to, and what is kept."""

import math

import pytest
import torch
from torch import Tensor

from trainer_core.learning.residuals import ResidualStore

P = 4
ANGLES = (0.0, 60.0, 120.0, 180.0, 240.0, 300.0)
"""States on a circle about the origin: standardizing leaves their directions, so similarities are cosines of these."""


def towards(degrees: float) -> list[float]:
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


def residual(number: int) -> Tensor:
    return torch.full((P,), float(number + 1))


def store() -> ResidualStore:
    """Six residuals, number i of value i + 1, seen in states 60 degrees apart."""
    found = ResidualStore(P, 1.0)
    for number, angle in enumerate(ANGLES):
        found.push(residual(number), towards(angle))
    return found


def test_only_states_above_the_threshold_are_similar_and_the_bound_itself_is_not() -> None:
    at_60 = store().select(towards(0.0), 0.7, 5)
    assert (at_60.history, at_60.similar, [w.residual_id for w in at_60.weights]) == (6, 1, [0])
    wider = store().select(towards(0.0), 0.49, 5)
    assert wider.weights[0].residual_id == 0 and {w.residual_id for w in wider.weights} == {0, 1, 5}
    bound = wider.weights[0].similarity
    assert store().select(towards(0.0), bound, 5).similar == 0, "strictly above"
    assert store().select(towards(0.0), 1.0, 5).weights == ()


def test_the_most_similar_come_first_and_no_more_than_top_k() -> None:
    found = store().select(towards(20.0), -1.0, 3)
    assert found.similar == 6, "all were similar enough"
    assert [w.residual_id for w in found.weights] == [0, 1, 5]
    assert [w.similarity for w in found.weights] == pytest.approx(
        [math.cos(math.radians(a)) for a in (20.0, 40.0, 80.0)], abs=1e-6
    )


def test_weights_are_similarities_over_their_sum_and_the_correction_is_their_weighted_sum() -> None:
    kept = store()
    found = kept.select(towards(30.0), 0.7, 5)
    assert {w.residual_id for w in found.weights} == {0, 1}
    assert [w.weight for w in found.weights] == pytest.approx([0.5, 0.5])
    uneven = kept.select(towards(20.0), 0.7, 5)
    a, b = math.cos(math.radians(20.0)), math.cos(math.radians(40.0))
    assert [w.weight for w in uneven.weights] == pytest.approx([a / (a + b), b / (a + b)], abs=1e-6)
    correction_P = kept.correction(uneven)
    assert correction_P is not None and correction_P.dtype is torch.float32
    assert torch.allclose(correction_P, torch.full((P,), (a * 1.0 + b * 2.0) / (a + b)), atol=1e-6)


def test_nothing_similar_is_no_correction() -> None:
    kept = ResidualStore(P, 1.0)
    assert kept.correction(kept.select(towards(0.0), 0.7, 5)) is None
    kept.push(residual(0), towards(180.0))
    assert kept.correction(kept.select(towards(0.0), 0.0, 5)) is None
    assert kept.select([math.nan, 0.0], 0.0, 5).weights == (), "a state that is no number is like nothing"


def test_memory_is_bounded_and_the_oldest_go_first_with_their_numbers() -> None:
    kept = ResidualStore(P, 3 * 2 * P / 2**20)
    assert kept.capacity == 3
    for number, angle in enumerate(ANGLES):
        kept.push(residual(number), towards(angle))
    found = kept.select(towards(300.0), -1.0, 9)
    assert len(kept) == 3 and {w.residual_id for w in found.weights} <= {3, 4, 5}
    last_P = kept.correction(found)
    assert last_P is not None and float(last_P[0]) > 4.0
    assert ResidualStore(P, 0.0).capacity == 0


def test_of_a_small_model_the_documents_200_are_kept_and_of_a_longer_history_the_newest() -> None:
    kept, longer = ResidualStore(P, 64.0), ResidualStore(P, 64.0)
    assert kept.capacity == 200
    for number in range(300):
        kept.push(residual(number), towards(number))
    assert len(kept) == 200 and {w.residual_id for w in kept.select(towards(0.0), -1.0, 999).weights} <= set(
        range(100, 300)
    )
    saved = kept.state_dict()
    older = torch.zeros(50, P, dtype=torch.bfloat16), [[9.0, 9.0]] * 50
    longer.load_state_dict(
        {
            "next_id": 300,
            "residuals": torch.cat([older[0], saved["residuals"]]),
            "states": [*older[1], *saved["states"]],
        }
    )
    for each in (kept, longer):
        each.push(residual(300), towards(300.0))
    assert longer.select(towards(7.0), 0.7, 5) == kept.select(towards(7.0), 0.7, 5)


def test_what_it_keeps_is_its_own_copy_and_nothing_that_is_not_finite() -> None:
    kept, value_P = ResidualStore(P, 1.0), residual(0).bfloat16()
    kept.push(value_P, towards(0.0))
    value_P.zero_()
    again_P = kept.correction(kept.select(towards(0.0), 0.7, 1))
    assert again_P is not None and torch.equal(again_P, residual(0))
    kept.push(residual(1), [math.inf, 0.0])
    assert len(kept) == 1


def test_a_restored_store_selects_and_corrects_as_the_saved_one() -> None:
    kept, other = store(), ResidualStore(P, 1.0)
    other.load_state_dict(kept.state_dict())
    for each in (kept, other):
        each.push(residual(6), towards(45.0))
    ours, theirs = (each.select(towards(30.0), 0.5, 5) for each in (kept, other))
    assert ours == theirs
    corrections = [each.correction(ours) for each in (kept, other)]
    assert corrections[0] is not None and corrections[1] is not None and torch.equal(*corrections)  # type: ignore[arg-type]


def test_a_smaller_store_takes_the_newest_of_a_saved_one() -> None:
    kept, small = store(), ResidualStore(P, 3 * 2 * P / 2**20)
    small.load_state_dict(kept.state_dict())
    found = small.select(towards(240.0), 0.7, 5)
    assert (found.history, [w.residual_id for w in found.weights]) == (3, [4])
    assert small.state_dict()["states"] == kept.state_dict()["states"][-3:] == [towards(a) for a in ANGLES[-3:]]


def test_of_equally_similar_ones_the_newest_are_taken() -> None:
    kept = ResidualStore(P, 1.0)
    for number in range(20):
        kept.push(residual(number), towards(180.0 if number % 2 else 0.0))
    found = kept.select(towards(0.0), 0.7, 3)
    assert (found.similar, [w.residual_id for w in found.weights]) == (10, [18, 16, 14])
