"""Which arms race on a task, and what each one is for. Reads the choices from spec; trains nothing."""

import msgspec

from trainer_core.bench.results import Guard
from trainer_core.spec.config import ALL_SETTINGS

SAME = 1e-4
"""The document's small-preset learning rate: the tasks' own."""
GRID = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
RAISED = (3, 10, 30)
BASELINE, TUNED, LOCKED = "plain", "plain tuned", "hybrid locked"


class Planned(msgspec.Struct, frozen=True):
    """One arm to be run."""

    name: str
    kind: str
    about: str
    settings: dict[str, str]
    compressed: bool = False
    locked: bool = False


def choices(section: str, name: str) -> tuple[str, ...]:
    """The allowed words of a setting."""
    return next(s.choices for s in ALL_SETTINGS if (s.section, s.name) == (section, name))


def rate(value: float, constant: bool = False) -> dict[str, str]:
    """The settings of a learning rate; ``constant``: without the task's own schedule."""
    found = {"learning_rate.initial": f"{value:g}"}
    return found | ({"learning_rate_schedule.type": "Constant"} if constant else {})


def planned(task: str, tuned: float) -> tuple[list[Planned], list[Guard]]:
    """The arms and the guards of ``task``, whose tuned learning rate is ``tuned``."""
    arms = [
        Planned(TUNED, "plain", "learning rate tuned, schedule compressed to the budget", rate(tuned, True), True),
        Planned(BASELINE, "plain", "the same configuration as hybrid, without prediction", {}),
        *(_raised(factor) for factor in RAISED),
        *(_hybrid(predictor) for predictor in choices("predictor_config", "type")),
        Planned(LOCKED, "hybrid", "prediction locked: what the bookkeeping costs", {}, locked=True),
    ]
    guards = []
    for name, value in {"tuned rate": tuned, "rate 1e-3": 1e-3}.items():
        if name == "rate 1e-3" and tuned == 1e-3:
            continue
        guards.append(_guard(arms, name, rate(value)))
    if task == "digits":
        full = rate(1e-3) | {"training.batch_size": "1437"}
        guards.append(_guard(arms, "full batch, rate 1e-3", full))
    if "Muon" in choices("optimizer", "type"):
        arms += _muon(tuned)
    return arms, guards


def hybrid_name(predictor: str) -> str:
    """The arm of a predictor."""
    return f"hybrid {predictor}"


def _hybrid(predictor: str) -> Planned:
    about = f"the same configuration with the {predictor} predictor"
    return Planned(hybrid_name(predictor), "hybrid", about, {"predictor_config.type": predictor})


def _raised(factor: int) -> Planned:
    return Planned(f"plain {factor}x", "plain", "just raise the learning rate", rate(SAME * factor))


def _guard(arms: list[Planned], name: str, settings: dict[str, str]) -> Guard:
    """Adds the pair of arms that differ only in prediction; a plain one that races already is not run twice."""
    plain = next((a.name for a in arms if a.kind == "plain" and a.settings == settings and not a.compressed), None)
    if plain is None:
        plain = f"plain, {name}"
        arms.append(Planned(plain, "plain", "guard: without prediction", settings))
    hybrid = f"hybrid, {name}"
    arms.append(Planned(hybrid, "hybrid", "guard: prediction where it is not expected to pay", settings))
    return Guard(name, hybrid, plain)


def _muon(tuned: float) -> list[Planned]:
    settings = rate(tuned, True) | {"optimizer.type": "Muon"}
    every = "optimizer.orthogonaliser_every"
    known = any(s.name == "orthogonaliser_every" for s in ALL_SETTINGS)
    return [
        Planned("plain Muon", "plain", "another optimizer, its schedule compressed too", settings, True),
        Planned(
            "hybrid Muon",
            "hybrid",
            "the same, with prediction of weights and of the orthogonaliser",
            settings | ({every: "2"} if known else {}),
            True,
        ),
    ]
