"""Every number once: name, default, bounds, unit and meaning, in the sections of the document. Knows no file format.

msgspec checks bounds when decoding, not in ``__init__``, so configurations are made by ``spec.loading``; the rules
that join several settings are checked in ``__post_init__``.
"""

from typing import Annotated, Literal

import msgspec


def _meta(meaning: str, unit: str, live: bool, low: float | None, high: float | None) -> msgspec.Meta:
    return msgspec.Meta(ge=low, le=high, description=meaning, extra_json_schema={"unit": unit, "live": live})


def share(meaning: str, live: bool = False) -> msgspec.Meta:
    """A number in [0, 1]."""
    return _meta(meaning, "share", live, 0, 1)


def steps(meaning: str, low: int = 1, high: int = 10_000_000, live: bool = False) -> msgspec.Meta:
    """A whole number of steps."""
    return _meta(meaning, "steps", live, low, high)


def number(meaning: str, low: float, high: float, unit: str = "", live: bool = False) -> msgspec.Meta:
    """A number between two bounds, both allowed."""
    return _meta(meaning, unit, live, low, high)


def word(meaning: str, live: bool = False) -> msgspec.Meta:
    """A choice, a switch or a name: it has no bounds. Live, a switch is set by 0 and 1."""
    return _meta(meaning, "", live, None, None)


def at_most(section: "Section", lower: str, upper: str) -> None:
    """Cross-field rule: ``lower <= upper``. msgspec turns the ValueError into a ValidationError when decoding."""
    low, high = getattr(section, lower), getattr(section, upper)
    if low > high:
        raise ValueError(f"{lower} = {low:g} must not be above {upper} = {high:g}")


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of the configuration."""


class HybridTrainerConfig(Section, frozen=True):
    policy: Annotated[
        Literal["adaptive", "document"],
        word("Who sets the lengths: what was kept and undone so far (adaptive), or the settings below (document)."),
    ] = "adaptive"
    warmup_steps: Annotated[int, steps("Steps of WARMUP before the first FULL phase.", low=0)] = 100
    warmup_stability: Annotated[
        float,
        number(
            "WARMUP ends when the loss EMA moved by less than this share over the last 20 steps.",
            0,
            10,
        ),
    ] = 0.25
    full_steps: Annotated[
        int,
        steps("FULL steps per cycle (document); the longest window (adaptive).", live=True),
    ] = 40
    min_full_steps: Annotated[
        int,
        steps(
            "Shortest FULL window of the adaptive policy, beside the one full step of CORRECT; "
            "full_steps when that is less.",
            low=0,
            live=True,
        ),
    ] = 0
    max_predict_steps: Annotated[int, steps("Longest prediction horizon.", live=True)] = 40
    min_predict_steps: Annotated[
        int,
        steps(
            "Shortest prediction horizon; max_predict_steps when that is less.",
            live=True,
        ),
    ] = 5
    correct_steps: Annotated[
        int,
        steps("Validating full steps in CORRECT (document policy).", high=1000, live=True),
    ] = 5
    trust_region: Annotated[
        float,
        number(
            "Largest change of one tensor in one prediction, as a share of its norm; 0: no bound.", 0, 1e6, live=True
        ),
    ] = 0.0
    probe_share: Annotated[
        float,
        share("Share of a batch's samples, at least 8 of them, that the paired tests compare; 1: all."),
    ] = 0.5
    progress_guard: Annotated[
        bool,
        word(
            "Compare progress per cost with and without predictions, and pause them where they slow the run (adaptive)."
        ),
    ] = True
    forward_every: Annotated[
        int,
        steps(
            "PREDICT steps between two forward passes (document policy); 1: a forward pass at every step.",
            high=10_000,
        ),
    ] = 1
    confidence_threshold: Annotated[float, share("Below this, predictions are not trusted.", live=True)] = 0.85
    divergence_threshold: Annotated[
        float,
        number("Loss deviations above this end PREDICT.", 0.1, 100, unit="sigma", live=True),
    ] = 3.0
    divergence_window: Annotated[int, steps("No prediction this soon after a divergence.", low=0, live=True)] = 10
    moment_aging: Annotated[
        float,
        share("Share of a kept prediction's steps that Adam's second moments age by; 0: they stay."),
    ] = 0.0
    snapshot_device: Annotated[
        Literal["same", "cpu"],
        word("Where the undo snapshot lives: beside the weights, or in host memory."),
    ] = "same"


class PredictorConfig(Section, frozen=True):
    type: Annotated[
        Literal["Linear", "MLP", "RSSM"],
        word("Which predictor proposes weight changes."),
    ] = "Linear"
    direction: Annotated[
        Literal["auto", "optimizer", "window"],
        word("Where Linear takes its slope: Adam's own moments, the mean of recent changes, or the first that exists."),
    ] = "auto"
    window: Annotated[int, steps("Recent steps the window slope is averaged over.", low=2, high=1000)] = 10
    noise_mask: Annotated[
        float,
        share(
            "Coordinates whose abs(mean)/rms of the gradient is below this take little of Adam's step (0: all of it)."
        ),
    ] = 0.45
    residual_memory_mb: Annotated[
        float, number("Memory for residual vectors, at most 200 of them, oldest out.", 0, 1e6, unit="MiB")
    ] = 64.0
    predictor_time_share: Annotated[
        float,
        share("MLP, RSSM: training may take this share of the measured time of the steps, and never more."),
    ] = 0.05
    predictor_train_every: Annotated[
        int,
        steps("MLP, RSSM: steps between two training units; 0: as often as predictor_time_share allows.", low=0),
    ] = 0
    similarity_threshold: Annotated[
        float,
        share("Residuals from states less similar than this are not used.", live=True),
    ] = 0.7
    top_k: Annotated[
        int,
        number("Residuals combined into one correction.", 1, 1000, unit="residuals"),
    ] = 5
    deterministic_dim: Annotated[int, number("RSSM: deterministic state.", 1, 65536, unit="features")] = 256
    stochastic_dim: Annotated[int, number("RSSM: stochastic variables.", 1, 65536, unit="variables")] = 32
    num_categoricals: Annotated[
        int,
        number("RSSM: classes of each stochastic variable.", 1, 65536, unit="classes"),
    ] = 32
    ensemble_size: Annotated[
        int,
        number("Predictors whose spread is the uncertainty.", 1, 64, unit="predictors"),
    ] = 1


class LearningRateConfig(Section, frozen=True):
    initial: Annotated[float, number("Learning rate after warmup; none: the optimizer's own.", 1e-12, 100)] | None = (
        None
    )


class LearningRateSchedule(Section, frozen=True):
    type: Annotated[
        Literal["WarmupStableDecay", "Cyclic", "Constant", "WarmupOnly"],
        word("Shape of the learning rate over steps."),
    ] = "Constant"
    warmup_steps: Annotated[int, steps("Linear increase over this many steps.", low=0)] = 100
    warmup_init: Annotated[float, number("Learning rate at step 0.", 0, 100)] = 1e-6
    warmup_target: Annotated[float, number("Learning rate at the end of warmup; none: initial.", 0, 100)] | None = None
    stable_steps: Annotated[int, steps("Constant for this many steps.", low=0)] = 5000
    stable_rate: Annotated[float, number("Learning rate while stable; none: warmup_target.", 0, 100)] | None = None
    decay_steps: Annotated[int, steps("Cosine decay over this many steps; then decay_min.", low=0)] = 5000
    decay_min: Annotated[float, number("Learning rate after the decay.", 0, 100)] = 1e-6
    base_lr: Annotated[float, number("Cyclic: lowest learning rate.", 0, 100)] = 1e-5
    max_lr: Annotated[float, number("Cyclic: highest learning rate.", 0, 100)] = 1e-4
    cycle_length: Annotated[int, steps("Cyclic: steps of one whole cycle.", low=2)] = 1000
    mode: Annotated[
        Literal["triangular", "triangular2", "exp_range"],
        word("Cyclic: how the peak changes: not, halved each cycle, or by gamma each step."),
    ] = "triangular"
    gamma: Annotated[float, number("Cyclic, exp_range: factor on the peak per step.", 0.5, 1)] = 0.99994


class OptimizerConfig(Section, frozen=True):
    type: Annotated[
        Literal["AdamW", "Adam", "SGD", "Muon"],
        word("Which torch.optim optimizer the built-in tasks use; Muon moves the body's matrices, AdamW the rest."),
    ] = "AdamW"
    beta1: Annotated[float, number("Decay of the first moment (momentum, for SGD).", 0, 0.999999)] = 0.9
    beta2: Annotated[float, number("Decay of the second moment.", 0, 0.9999999)] = 0.999
    weight_decay: Annotated[float, number("Decoupled weight decay.", 0, 10)] = 0.01
    muon_lr: (
        Annotated[float, number("Muon: rate of the matrices; none: 0.02, or twice initial to match_rms_adamw.", 0, 100)]
        | None
    ) = None
    muon_momentum: Annotated[float, number("Muon: decay of the momentum.", 0, 0.999999)] = 0.95
    muon_scale: Annotated[
        Literal["original", "match_rms_adamw"],
        word("Muon: steps scaled by sqrt(max(1, rows/columns)), or to the size of AdamW's."),
    ] = "original"
    orthogonaliser_every: Annotated[
        int, steps("Muon: steps that share one orthogonaliser; 1: each computes its own.", high=8)
    ] = 1
    orthogonaliser_confidence: Annotated[
        float, share("Muon: cosine of old and new step below which orthogonalisers are not shared.")
    ] = 0.4
    gradient_clip_norm: Annotated[
        float,
        number("Largest global gradient norm; 0: no clipping.", 0, 1e6, live=True),
    ] = 0.0


class DivergenceConfig(Section, frozen=True):
    nan_check_enabled: Annotated[
        bool, word("Watch for NaN and Inf; the rollback they cause is part of it.", live=True)
    ] = True
    loss_deviation_warning: Annotated[float, number("Loss deviation to warn at.", 0, 100, unit="sigma", live=True)] = (
        2.0
    )
    confidence_critical: Annotated[float, share("Confidence below this is critical.", live=True)] = 0.70
    gradient_norm_low: Annotated[float, number("Gradient norms below this are vanishing.", 0, 1e6, live=True)] = 0.1
    gradient_norm_high: Annotated[float, number("Gradient norms above this are exploding.", 0, 1e9, live=True)] = 10.0
    gradient_norm_extreme_low: Annotated[
        float, number("Gradient norms below this are critical.", 0, 1e6, live=True)
    ] = 0.01
    gradient_norm_extreme_high: Annotated[
        float, number("Gradient norms above this are critical.", 0, 1e9, live=True)
    ] = 100.0
    prediction_error_warning: Annotated[float, number("Relative loss error to warn at.", 0, 100, live=True)] = 0.10
    prediction_error_threshold: Annotated[
        float,
        number(
            "Relative loss error that ends PREDICT with a correction.",
            0,
            100,
            live=True,
        ),
    ] = 0.20
    update_explosion_factor: Annotated[
        float,
        number("Update norms above this many baselines end PREDICT.", 1, 1e9, live=True),
    ] = 10.0
    update_vanishing_factor: Annotated[
        float,
        share("Update norms below this share of the baseline end PREDICT.", live=True),
    ] = 0.01
    max_sign_changes: Annotated[
        int,
        number(
            "More sign changes of the loss difference in 10 steps end PREDICT.",
            0,
            10,
            live=True,
        ),
    ] = 3
    max_recoveries: Annotated[
        int,
        number("Automatic rollbacks before the run gives up.", 0, 1000, unit="rollbacks"),
    ] = 5

    def __post_init__(self) -> None:
        at_most(self, "gradient_norm_extreme_low", "gradient_norm_low")
        at_most(self, "gradient_norm_low", "gradient_norm_high")
        at_most(self, "gradient_norm_high", "gradient_norm_extreme_high")
        at_most(self, "prediction_error_warning", "prediction_error_threshold")


class TrainingConfig(Section, frozen=True):
    batch_size: Annotated[int, number("Samples per batch.", 1, 1_000_000, unit="samples")] = 64
    max_steps: Annotated[int, steps("Nominal steps of the run.")] = 1000
    seed: Annotated[
        int,
        number("Seed of the model, the data order and every random choice.", 0, 2**31 - 1),
    ] = 0
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        word("Where to train; auto: CUDA when there is one."),
    ] = "auto"
    threads: Annotated[
        int, number("CPU threads of one tensor operation; 0: torch's own choice.", 0, 1024, unit="threads")
    ] = 0
    use_mixed_precision: Annotated[
        bool,
        word("Autocast the forward pass to the type that precision says."),
    ] = False
    precision: Annotated[
        Literal["auto", "fp16", "bf16"],
        word("Type of use_mixed_precision: fp16 (with loss scaling) or bf16; auto: fp16 on CUDA, bf16 on CPU."),
    ] = "auto"
    accumulate: Annotated[
        int,
        number("Micro-batches a batch is cut into; their gradients add up to the batch's.", 1, 65536, "micro-batches"),
    ] = 1
    compile: Annotated[bool, word("Compile the model's forward pass with torch.compile.")] = False
    loss_scale: Annotated[float, number("Initial loss scale for fp16.", 1, 2**24)] = 65536.0
    validate_every: Annotated[
        int, steps("Steps between validations, at least a quarter as many batches; 0: only at the end.", low=0)
    ] = 100
    rank_check_every: Annotated[
        int, steps("Several ranks: steps between two comparisons of every bit of the weights; 0: never.", low=0)
    ] = 100
    rank_timeout: Annotated[
        float,
        number("Several ranks: longest wait for another one before the run fails.", 1, 86400, unit="s"),
    ] = 600.0
    early_stopping_patience: Annotated[
        int,
        number(
            "Validations without improvement before stopping; 0: never.",
            0,
            1_000_000,
            unit="validations",
            live=True,
        ),
    ] = 0


class CheckpointConfig(Section, frozen=True):
    checkpoint_every: Annotated[
        int,
        steps(
            "Steps between checkpoints, at least a quarter as many batches; up to twice as many where predictions "
            "follow one another; 0: the first, the last and on request.",
            low=0,
        ),
    ] = 200
    keep_last: Annotated[
        int,
        number("Checkpoints kept, beside the last good one and the best one.", 1, 10_000, unit="checkpoints"),
    ] = 3
    keep_best: Annotated[
        bool,
        word("Save a checkpoint at every validation loss that is the lowest so far, and keep the newest of them."),
    ] = True
    keep_spaced: Annotated[
        bool,
        word("Keep up to three more that reach back in time: within a minute, ten minutes, and beyond."),
    ] = True


class DatasetConfig(Section, frozen=True):
    domain: Annotated[str, word("What the data is about; recorded with the run.")] = "general"
    num_examples: (
        Annotated[
            int,
            number("Use at most this many training examples.", 1, 10**12, unit="examples"),
        ]
        | None
    ) = None
    diversity_score: Annotated[float, share("How varied the data is; recorded with the run.")] | None = None
    folder: Annotated[str, word("Folder that the task reads its data from (--data); none: the task's own.")] | None = (
        None
    )


class ModelConfig(Section, frozen=True):
    hidden_dim: Annotated[int, number("Width of the built-in model; none: the task's own.", 1, 65536)] | None = None
    num_layers: Annotated[int, number("Layers of the built-in model; none: the task's own.", 1, 1000)] | None = None
    vocab_size: (
        Annotated[
            int,
            number("Tokens the language model knows; none: the task's own.", 2, 10_000_000),
        ]
        | None
    ) = None
    dropout_rate: Annotated[float, number("Dropout probability.", 0, 0.99)] = 0.0
    use_residual: Annotated[bool, word("Residual connections in the built-in models.")] = True
    normalization: Annotated[
        Literal["LayerNorm", "BatchNorm", "none"],
        word("Normalization of the built-in models."),
    ] = "LayerNorm"
    weight_init: Annotated[
        Literal["default", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal"],
        word("Initialization of weight matrices; default: the built-in model's own."),
    ] = "default"
