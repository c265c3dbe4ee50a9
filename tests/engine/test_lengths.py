"""The windows and horizons the adaptive policy learns."""

from trainer_core.engine.lengths import Lengths
from trainer_core.spec.config import Config

CONFIG = Config()


def test_refusals_space_the_looks_out_and_a_lower_threshold_brings_them_back() -> None:
    lengths = Lengths(CONFIG)
    at_first = lengths.full_needed(CONFIG)
    for _ in range(20):
        lengths.refused(CONFIG, better=False)
    assert at_first < CONFIG.hybrid_trainer_config.full_steps < lengths.full_needed(CONFIG) <= 160
    lengths.look_again(CONFIG)
    assert lengths.refusals == 0
    assert lengths.full_needed(CONFIG) == CONFIG.hybrid_trainer_config.full_steps


def test_a_kept_prediction_shortens_the_window_again() -> None:
    lengths = Lengths(CONFIG)
    for _ in range(4):
        lengths.refused(CONFIG, better=False)
    long = lengths.full_needed(CONFIG)
    lengths.kept(CONFIG)
    assert lengths.full_needed(CONFIG) < long
