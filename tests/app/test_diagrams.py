"""docs/diagrams.md names every diagram and table of the document, and every place that it names is on a page."""

import re
from pathlib import Path

import pytest

from app.screens.registry import PAGES

FILE = Path(__file__).resolve().parents[2] / "docs" / "diagrams.md"
DOCUMENT: dict[str, tuple[str, ...]] = {
    "diagram": (
        "Visual Architecture",
        "1. Warmup Phase",
        "2. Full Training Phase",
        "3. Predictive Phase",
        "4. Correction Phase",
        "State Machine",
        "Healthy Training Curve",
        "1. Prediction Divergence",
        "2. Gradient Explosion",
        "3. Loss Plateau",
        "4. Oscillation",
        "Issue: Overfitting",
        "Issue: NaN/Inf Loss",
        "WSD (Warmup-Stable-Decay)",
        "Alternative: Cyclic Learning Rate",
        "1. Gradient Norm",
        "2. Per-Layer Gradient Norms",
        "3. Gradient-to-Parameter Ratio",
        "4. Gradient Variance",
    ),
    "formula": ("3. Predictive Phase: speedup calculation",),
    "table": (
        "3. Predictive Phase: divergence triggers",
        "Transition Conditions",
        "Hyperparameter Reference Table",
        "Comparison Table",
        "Schedule Selection Guide",
        "1. Gradient Norm: actions by zone",
        "Phase Quick Reference",
        "Critical Thresholds",
        "Emergency Actions",
    ),
    "checklist": ("Gradient Health Checklist: before starting", "Gradient Health Checklist: during training"),
    "code": (
        "2. Full Training Phase: operations",
        "4. Correction Phase: residual similarity weighting",
        "WSD: implementation",
        "3. Gradient-to-Parameter Ratio: code",
    ),
    "settings": (
        "Small Models",
        "Medium Models",
        "Large Models",
        "Issue: Low Predictor Confidence",
        "Issue: Frequent Divergence",
        "Issue: Overfitting: solutions",
        "Issue: Underfitting",
        "Issue: NaN/Inf Loss: immediate actions",
        "Issue: NaN/Inf Loss: prevention",
        "Specialist Training",
        "Generalist Training",
        "WSD: configuration",
        "Cyclic: configuration",
        "2. Per-Layer Gradient Norms: fix",
        "Appendix: Configuration",
    ),
    "log": ("Appendix: Training Log",),
}
"""Every block, table and checklist of the methodology, under its heading."""

ROWS = [
    [cell.strip() for cell in line.strip("| \n").split(" | ")]
    for line in FILE.read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| in the document")
]


def test_every_diagram_and_table_of_the_document_has_one_row() -> None:
    assert all(len(row) == 4 for row in ROWS)
    listed = [(row[1], row[0]) for row in ROWS]
    assert len(listed) == len(set(listed))
    assert set(listed) == {(kind, name) for kind, names in DOCUMENT.items() for name in names}


def names_on(page: str) -> set[str]:
    """Figures, lists, bound values, ids and drawings of a page, as its HTML and its figures have them."""
    html = PAGES[page].html()
    drawn = set(re.findall(r'data-figure="([^"]+)"', html)) & set(PAGES[page].figures)
    attributes = set(re.findall(r'(?:data-list|data-bind|data-on|id)="([^"]+)"', html))
    drawings = {name for names in re.findall(r'<svg class="([^"]+)"', html) for name in names.split()}
    return drawn | attributes | drawings


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_every_place_is_on_its_page(row: list[str]) -> None:
    places = re.findall(r"`([a-z]+)#([^`]+)`", row[3])
    assert places and len(places) == row[3].count("#"), "a place is `page#name`"
    for page, name in places:
        assert page in PAGES, f"no page called {page}"
        assert name in names_on(page), f"{name} is not on the {page} page"
