"""Every colour of the dashboard, by meaning, for light and dark. Knows no figure; nothing else may hold a hex code."""

from trainer_core.spec.phases import Phase
from trainer_core.spec.severity import Severity

PHASE = {
    Phase.WARMUP: "#E69F00",
    Phase.FULL: "#0072B2",
    Phase.PREDICT: "#009E73",
    Phase.CORRECT: "#CC79A7",
}
"""Okabe-Ito hues: told apart with every common colour blindness. A letter badge stands beside each."""

ON_PHASE = {
    Phase.WARMUP: "#10151c",
    Phase.FULL: "#ffffff",
    Phase.PREDICT: "#10151c",
    Phase.CORRECT: "#10151c",
}
"""Words on a phase's hue, at a contrast of 5 or more."""

ICON = {Severity.HEALTHY: "✓", Severity.CAUTION: "◔", Severity.WARNING: "▲", Severity.CRITICAL: "✖"}
"""Severity is never told by colour alone."""

TOKENS: dict[str, dict[str, str]] = {
    "light": {
        "text": "#1b2430",
        "muted": "#5b6675",
        "faint": "#a9b2bd",
        "grid": "#e6e9ee",
        "line": "#d5dae1",
        "surface": "#ffffff",
        "raised": "#f6f8fa",
        "measured": "#27323f",
        "abandoned": "#b9c0c9",
        "healthy": "#3f7d5c",
        "caution": "#8d6b00",
        "warning": "#c2410c",
        "critical": "#b91c1c",
        "accent": "#3b5b92",
    },
    "dark": {
        "text": "#e6eaf0",
        "muted": "#9aa5b4",
        "faint": "#5f6b7a",
        "grid": "#232b36",
        "line": "#323c49",
        "surface": "#0e1117",
        "raised": "#171c25",
        "measured": "#dfe5ec",
        "abandoned": "#4c5765",
        "healthy": "#6fbf92",
        "caution": "#d9b13b",
        "warning": "#ff8a4c",
        "critical": "#ff6b6b",
        "accent": "#8fb0e8",
    },
}

RUNS = {
    "light": ("#33658a", "#d1495b", "#2f7f52", "#a07900", "#0e8fa8", "#8f3a84", "#6b6f76", "#1f2a36"),
    "dark": ("#7fb0d8", "#ff8a97", "#7fd19f", "#e3c24d", "#62d0e6", "#d791cc", "#a9b0ba", "#f0f3f7"),
}
"""Of runs that are compared; each has its own dash as well."""


HEAT = ("#00224e", "#31446b", "#666970", "#958f78", "#cbba69", "#fee838")
"""From small to large values, in both modes: told apart with every colour blindness, and in grey."""


def tokens() -> dict[str, dict[str, str]]:
    """Colour by token name for each mode: the phases, the severities and the neutrals. Figures name only tokens."""
    phases = {f"phase_{phase.value.lower()}": hue for phase, hue in PHASE.items()}
    phases |= {f"on_{phase_token(phase)}": ink for phase, ink in ON_PHASE.items()}
    runs = {mode: {f"run_{i}": hue for i, hue in enumerate(hues)} for mode, hues in RUNS.items()}
    heat = {f"heat_{i}": hue for i, hue in enumerate(HEAT)}
    return {mode: {**neutral, **phases, **runs[mode], **heat} for mode, neutral in TOKENS.items()}


def phase_token(phase: Phase) -> str:
    """The token of a phase's hue."""
    return f"phase_{phase.value.lower()}"


def severity_token(severity: Severity) -> str:
    """The token of a severity's colour."""
    return severity.name.lower()
