"""Claims about what hybrid training keeps beside weights, gradients and optimizer state; decision 30."""

import pytest
import torch

from trainer_core.bench.memory import Census, measure_memory, only_new_tensors
from trainer_core.learning.coarse import CoarseWeights
from trainer_core.learning.parameters import Parameters


def test_the_linear_predictor_keeps_five_models_at_most() -> None:
    """In CORRECT: work 1, mean slope 1/2, the guard's anchor 1/2, the snapshot's weights 1 and Adam moments 2."""
    measured = measure_memory("digits", "Linear", 40)
    assert measured.failed is None and measured.models is not None
    assert 4.0 < measured.models < 5.1


def test_the_census_sees_a_tensor_more() -> None:
    model = torch.nn.Linear(50, 40)
    optimizer = torch.optim.AdamW(model.parameters())
    with only_new_tensors():
        census = Census(model, optimizer)
        census.look()
        before = census.models
        extra = torch.zeros(2 * 2040)
        census.look()
    assert census.models - before == pytest.approx(2.0) and extra.numel() == 4080


def test_coarse_weights_are_off_by_half_a_step_at_most_and_survive_a_checkpoint() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.Linear(30, 5))
    parameters = Parameters(model)
    exact = [p.detach().clone() for p in parameters.tensors]
    coarse = CoarseWeights.from_state(CoarseWeights.of(parameters, torch.device("cpu")).state_dict())
    with torch.no_grad():
        for p in parameters.tensors:
            p.zero_()
    coarse.write(parameters)
    for p, w in zip(parameters.tensors, exact, strict=True):
        assert float((p.detach() - w).abs().max()) <= float(w.abs().max()) / 32767 * 0.51


def test_what_is_kept_does_not_grow_with_the_run() -> None:
    short, long = (measure_memory("digits", "Linear", steps).models for steps in (30, 90))
    assert short is not None and long == pytest.approx(short, abs=0.1)
