"""When a validation or a checkpoint is due: by steps, and by the batches that these cost as much as. Saves nothing."""

from typing import TYPE_CHECKING

from trainer_core.spec.phases import Phase

if TYPE_CHECKING:
    from trainer_core.engine.engine import Engine

DENSER = 4
"""How many times as often, by batches, predictions may bring validations and checkpoints."""


def is_due(engine: "Engine", every: int, step: int, batches: int) -> bool:
    """Whether a multiple of ``every`` steps has come since ``step``; 0: never.

    Predicted steps cost next to nothing and a validation or checkpoint costs what it always does: a quarter as
    many batches must have been trained on since ``batches``, or these would take what prediction saves.
    """
    return every > 0 and engine.step_count // every > step // every and DENSER * (engine.batches - batches) >= every


def checkpoint_is_due(engine: "Engine", step: int, batches: int) -> bool:
    """Whether to save now what is saved at intervals, last at ``step``.

    A prediction under way would make it larger. But where one follows the other no step is FULL's: a second interval is
    not waited for, and CORRECT's weights are saved, with the snapshot that they may go back to.
    """
    every = engine.config.checkpoint.checkpoint_every
    if not engine.healthy or not is_due(engine, every, step, batches):
        return False
    return engine.phase in (Phase.WARMUP, Phase.FULL) or (
        engine.phase is Phase.CORRECT and is_due(engine, every, step + every, batches + every // DENSER)
    )
