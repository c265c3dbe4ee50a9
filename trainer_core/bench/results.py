"""What the benchmark measured, as the JSON holds it: every arm, seed and failure. Knows no torch, computes nothing."""

import msgspec

FORMAT = 1


class Point(msgspec.Struct, frozen=True):
    """One validation, and what had been paid for by then."""

    seconds: float
    """Wall clock of training; validation and the start's checkpoint are not in it."""
    steps: int
    """Nominal steps."""
    backward_passes: int
    cost: float
    """Cost units: a forward pass is 1, a backward pass 2, both over one batch."""
    loss: float
    """Held-out loss."""


class Run(msgspec.Struct, frozen=True):
    """One arm with one seed."""

    seed: int
    points: tuple[Point, ...]
    batches: int
    kept: int
    undone: int
    outcomes: tuple[tuple[float, bool, bool | None], ...]
    """(confidence when it was entered, kept, better) of every prediction; better: by both paired tests together."""
    brier: float | None
    """As the run's last record states it: shadows of refused proposals count in it, too."""
    failed: str | None
    """Why it ended before its time; None: it did not."""


class Arm(msgspec.Struct, frozen=True):
    """One way to train."""

    name: str
    kind: str
    """plain or hybrid."""
    about: str
    settings: dict[str, str]
    """What differs from the task's own configuration."""
    compressed: bool
    """Its schedule (5 % warmup, constant, 20 % decay) fits the budget; else it is the task's own."""
    runs: tuple[Run, ...]


class Grid(msgspec.Struct, frozen=True):
    """The plain baseline's learning rates, tried at a short budget with the compressed schedule, first seed."""

    budget_seconds: float
    losses: dict[str, float | None]
    """Rate -> final held-out loss; None where it was not a number."""
    tuned: float


class Guard(msgspec.Struct, frozen=True):
    """Where prediction is not expected to pay: two arms that differ in nothing else."""

    name: str
    hybrid: str
    plain: str


class TaskResult(msgspec.Struct, frozen=True):
    """One task's race."""

    task: str
    budget_seconds: float
    """Of training, each arm and seed."""
    slice_seconds: float
    grid: Grid
    arms: tuple[Arm, ...]
    guards: tuple[Guard, ...]


class Overhead(msgspec.Struct, frozen=True):
    """Step times on code_lm, prediction locked, in milliseconds; ``ratio`` is hybrid / plain."""

    pairs: int
    plain_ms: float
    hybrid_ms: float
    ratio: float
    paired_ratio: float
    """Median of the ratios within each pair: less moved by a busy machine."""


class Memory(msgspec.Struct, frozen=True):
    """Tensors beyond model, gradients and optimizer state, in models, at their most over a short run."""

    task: str
    predictor: str
    models: float | None
    """Without remembered residuals, which may add ``residual_memory_mb``."""
    steps: int
    failed: str | None


class Results(msgspec.Struct, frozen=True):
    """One run of the benchmark."""

    format: int
    command: str
    quick: bool
    seeds: tuple[int, ...]
    machine: dict[str, str]
    versions: dict[str, str]
    took_seconds: float
    tasks: tuple[TaskResult, ...]
    overhead: Overhead
    memory: tuple[Memory, ...]
