"""Settings of the health statistics, the alerts and their remedies. Holds the numbers only; evaluates nothing."""

from typing import Annotated, Literal

from trainer_core.spec.sections import Section, at_most, number, share, steps, word


class HealthConfig(Section, frozen=True):
    remedies: Annotated[
        Literal["suggest", "auto"],
        word("Whether an alert only suggests its remedy or also applies it, once, within the limits below."),
    ] = "suggest"
    max_remedies: Annotated[
        int, number("Remedies applied by themselves in one run.", 0, 1000, unit="remedies", live=True)
    ] = 5
    remedy_cooldown: Annotated[int, steps("Steps between two remedies applied by themselves.", low=0, live=True)] = 200
    alert_cooldown: Annotated[
        int, steps("Steps after an alert is resolved in which its rule raises none.", low=0, live=True)
    ] = 50
    grad_param_ratio_low: Annotated[
        float, number("Gradient norm / parameter norm below this is too small.", 0, 1e6, live=True)
    ] = 1e-4
    grad_param_ratio_high: Annotated[
        float, number("Gradient norm / parameter norm above this is too large.", 0, 1e6, live=True)
    ] = 1e-2
    gradient_variance_high: Annotated[
        float, number("Variances of the gradient norm over 20 steps above this are noisy.", 0, 1e12, live=True)
    ] = 5.0
    gradient_stable_factor: Annotated[
        float, number("Checklist: a gradient norm within this factor of its baseline is stable.", 1, 1e6, live=True)
    ] = 2.0
    checklist_every: Annotated[int, steps("Steps between two looks at the training checklist.", live=True)] = 100
    dead_layers_limit: Annotated[
        float,
        share("A larger share of layers than this that had a gradient and have none: the model died.", live=True),
    ] = 0.5
    loss_rise_limit: Annotated[
        float,
        number("The smoothed loss lies a larger share than this above the first.", 0, 1e6, unit="share", live=True),
    ] = 0.1
    plateau_steps: Annotated[int, steps("More steps than this without improvement are a plateau.", live=True)] = 500
    plateau_improvement: Annotated[
        float, share("The smoothed loss has improved when it fell by more than this share.", live=True)
    ] = 0.001
    divergence_rate_limit: Annotated[
        float, number("Divergences per 100 predicted steps above this are frequent.", 0, 100, live=True)
    ] = 10.0
    divergences_in_a_row: Annotated[
        int, number("More predictions than this diverging in a row are a loop.", 1, 1000, "predictions", live=True)
    ] = 3
    full_share_limit: Annotated[
        float, share("A larger share of the recent steps than this in FULL: prediction hardly happens.", live=True)
    ] = 0.9
    overfitting_validations: Annotated[
        int, number("More validations in a row than this that rise while training falls.", 1, 1000, live=True)
    ] = 2
    overfitting_margin: Annotated[
        float, share("Rise of validation above its best, and fall of training since, that count.", live=True)
    ] = 0.01
    validation_gap: Annotated[
        float, number("Validation loss minus smoothed training loss above this is large.", 0, 1e6, live=True)
    ] = 0.5
    underfitting_validations: Annotated[
        int, number("More validations in a row than this with both losses high and flat.", 1, 1000, live=True)
    ] = 4
    underfitting_loss: Annotated[
        float, number("Losses above this are high (the document's figure for language models).", 0, 1e6, live=True)
    ] = 1.5
    implied_rate_limit: Annotated[
        float,
        number("Kept predictions that act like more than this many learning rates: it is too low.", 1, 1e6, live=True),
    ] = 3.0
    implied_rate_attempts: Annotated[
        int, number("Attempts the implied learning rate is averaged over.", 1, 1000, unit="attempts", live=True)
    ] = 20
    system_every: Annotated[
        float, number("Seconds between two readings of the machine (GPU, CPU, memory, disk); 0: none.", 0, 3600, "s")
    ] = 5.0
    disk_free_low: Annotated[
        float, number("Less free disk than this for the run directory is low.", 0, 1e6, "GiB", live=True)
    ] = 2.0
    disk_free_critical: Annotated[
        float, number("Less free disk than this is critical: the next checkpoint may fail.", 0, 1e6, "GiB", live=True)
    ] = 0.5
    memory_high: Annotated[float, share("More of the host's memory in use than this is high.", live=True)] = 0.90
    memory_critical: Annotated[float, share("More than this is critical: processes may be killed.", live=True)] = 0.97
    gpu_temperature_high: Annotated[float, number("A GPU hotter than this is hot.", 0, 200, "degrees C", live=True)] = (
        85.0
    )
    gpu_temperature_critical: Annotated[
        float, number("A GPU hotter than this is critical: it slows down by itself.", 0, 200, "degrees C", live=True)
    ] = 95.0

    def __post_init__(self) -> None:
        at_most(self, "grad_param_ratio_low", "grad_param_ratio_high")
        at_most(self, "disk_free_critical", "disk_free_low")
        at_most(self, "memory_high", "memory_critical")
        at_most(self, "gpu_temperature_high", "gpu_temperature_critical")
