"""Every page against axe-core, light and dark: no serious and no critical finding."""

import importlib.resources
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.app.conftest import Dashboard
from tests.app.rows import Script, cycled
from trainer_core.spec.commands import CommandState, SetThreshold
from trainer_core.spec.records import AlertRaised
from trainer_core.spec.severity import Severity

AXE = (importlib.resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
RUN = """async () => {
    const found = await axe.run(document, { resultTypes: ["violations"] });
    return found.violations.filter((rule) => ["serious", "critical"].includes(rule.impact)).flatMap((rule) =>
        rule.nodes.map((node) => `${rule.id}: ${node.target.join(" ")} ${node.html.slice(0, 160)}`));
}"""
PAGES = ("", "phases", "health", "alerts", "control", "compare", "reference")


def full() -> Script:
    """A run with something in every list."""
    script = cycled(6)
    script.command(SetThreshold("confidence_threshold", 0.9), CommandState.APPLIED, before="0.85", after="0.9", rev=1)
    script.say(
        AlertRaised(
            script.step, "a1", "gradient norm", Severity.WARNING, "grad_norm", 12.0, 10.0, "gradient norm 12", None
        )
    )
    return script


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_serious_finding(
    scheme: str,
    written_run: Callable[..., Path],
    start_dashboard: Callable[..., Dashboard],
    open_page: Callable[..., Page],
) -> None:
    written_run("run", full())
    dashboard = start_dashboard()
    page = open_page(f"{dashboard.url}/?run=run", scheme, steering=dashboard if scheme == "light" else None)
    findings = []
    for name in PAGES:
        page.goto(f"{dashboard.url}/{name}?run=run")
        page.wait_for_selector("[data-testid=stAppViewContainer]", timeout=60_000)
        place = "[data-testid=hy-now]" if name == "control" else ".hy-root"
        page.wait_for_selector(place, timeout=60_000)
        if name in ("", "phases", "health"):
            page.locator("[data-figure]:visible").first.scroll_into_view_if_needed()  # only what is in sight is drawn
            page.wait_for_selector("[data-figure][data-revision]", state="attached", timeout=60_000)
        page.evaluate(AXE)
        findings += [f"{name or 'live'}: {finding}" for finding in page.evaluate(RUN)]
    assert not findings, "\n".join(findings)
