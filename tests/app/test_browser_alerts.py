"""The Alerts page in a real browser, over a real run: what is pressed is asked, sent and applied."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.app.conftest import Dashboard, Process, until
from tests.app.test_browser import applied, records
from tests.conftest import end_agents
from trainer_core.spec.commands import (
    AcknowledgeAlert,
    ApplyRemedy,
    CommandRequest,
    CommandState,
    SetThreshold,
    SilenceAlert,
)
from trainer_core.spec.records import AlertRaised, CommandChanged
from trainer_core.spec.severity import Severity
from trainer_core.telemetry.client import Client

PLATEAU, DISK = "plateau", "disk nearly full"
SETTINGS = (
    "confidence_threshold=0.85",
    "plateau_steps=1",
    "plateau_improvement=1",
    "disk_free_low=1000000",
    "alert_cooldown=0",
)
"""No gain is enough and no disk is: the alerts stay open, or come again at once."""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Dashboard]]:
    folder = tmp_path_factory.mktemp("alerts")
    run_dir = folder / "runs" / "live"
    words = [sys.executable, "-m", "trainer_core", "train", "digits", "--steps", "10000000", "--run-dir", str(run_dir)]
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    trainer = Process(words, folder / "train.log", folder)
    until(lambda: run_dir.joinpath("journal.db").exists() and raised(run_dir) >= {PLATEAU, DISK}, 90, "both alerts")
    dashboard = Dashboard(folder / "runs", folder / "dashboard.log")
    yield run_dir, dashboard
    dashboard.end()
    trainer.end()
    end_agents(folder)


def raised(run_dir: Path) -> set[str]:
    return {record.rule for record in records(run_dir) if isinstance(record, AlertRaised)}


def row(page: Page, rule: str) -> Locator:
    return page.locator(f'.hy-entries > li[data-rule="{rule}"]').first


def test_a_remedy_is_shown_first_and_sent_by_a_press_only(
    live: tuple[Path, Dashboard], open_page: Callable[..., Page]
) -> None:
    run_dir, dashboard = live
    page = open_page(f"{dashboard.url}/alerts?run=live", steering=dashboard)
    expect(row(page, PLATEAU).locator(".hy-change")).to_contain_text("learning_rate")
    row(page, PLATEAU).get_by_role("button", name="Apply remedy…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Twice the learning rate")
    assert not [r for r in records(run_dir) if isinstance(r, CommandChanged)], "nothing was sent by looking"
    dialog.get_by_role("button", name="Apply all of it").click()
    assert applied(run_dir, ApplyRemedy).command == ApplyRemedy("loss_plateau")
    expect(page.get_by_text("applied at step").first).to_be_visible()
    assert page.evaluate("window.hybridMounts") == 1, "the page was not built anew"


def test_acknowledging_and_silencing_are_shown_when_the_run_has_done_them(
    live: tuple[Path, Dashboard], open_page: Callable[..., Page]
) -> None:
    run_dir, dashboard = live
    page = open_page(f"{dashboard.url}/alerts?run=live", steering=dashboard)
    row(page, DISK).get_by_role("button", name="Acknowledge").click()
    step = applied(run_dir, AcknowledgeAlert).step
    expect(row(page, DISK).locator(".hy-path")).to_contain_text(f"acknowledged at {step:,}")
    expect(row(page, DISK).get_by_role("button", name="Acknowledge")).to_have_count(0)
    row(page, PLATEAU).get_by_role("button", name="Silence…").click()
    page.get_by_role("dialog").get_by_role("button", name="Silence").click()
    change = applied(run_dir, SilenceAlert)
    assert change.command == SilenceAlert(PLATEAU, 500)
    expect(row(page, PLATEAU).locator(".hy-path")).to_contain_text(f"silenced until {change.step + 500:,}")


def test_whoever_only_looks_is_asked_for_the_code_and_sends_nothing(
    live: tuple[Path, Dashboard], open_page: Callable[..., Page]
) -> None:
    run_dir, dashboard = live
    page = open_page(f"{dashboard.url}/alerts?run=live")
    before = sum(isinstance(r, CommandChanged) for r in records(run_dir))
    row(page, PLATEAU).get_by_role("button", name="Acknowledge").click()
    expect(page.get_by_text("You are looking only")).to_be_visible()
    assert sum(isinstance(r, CommandChanged) for r in records(run_dir)) == before


def test_the_filter_hides_and_says_how_much(live: tuple[Path, Dashboard], open_page: Callable[..., Page]) -> None:
    page = open_page(f"{live[1].url}/alerts?run=live")
    expect(row(page, DISK)).to_be_visible()
    page.get_by_label("Rule", exact=True).select_option(PLATEAU)
    expect(row(page, DISK)).to_be_hidden()
    expect(row(page, PLATEAU)).to_be_visible()
    expect(page.locator(".hy-filters output")).to_contain_text("hidden by the filter")


def test_a_link_shows_the_steps_of_an_alert_on_the_live_page(
    live: tuple[Path, Dashboard], open_page: Callable[..., Page]
) -> None:
    page = open_page(f"{live[1].url}/alerts?run=live")
    row(page, PLATEAU).locator("a.hy-when").click()
    expect(page.locator(".hy-follow")).to_contain_text("view held at steps 0 to ")


def test_an_alert_that_becomes_critical_is_announced_once_in_a_browser(
    live: tuple[Path, Dashboard], open_page: Callable[..., Page]
) -> None:
    run_dir, dashboard = live
    page = open_page(f"{dashboard.url}/reference?run=live")
    expect(page.locator('[data-bind="strip.step"]')).not_to_be_empty()
    client = Client(run_dir, role="operator")
    heard = client.send(CommandRequest("critical1", SetThreshold("disk_free_critical", 1_000_000.0)))
    client.close()
    assert heard.state in (CommandState.ACCEPTED, CommandState.APPLIED), heard
    expect(page.locator(".hy-toast")).to_contain_text("disk nearly full", timeout=30_000)
    said = [r.severity for r in records(run_dir) if isinstance(r, AlertRaised) and r.rule == DISK]
    assert said == [Severity.WARNING, Severity.CRITICAL]
    again = page.context.new_page()
    again.goto(f"{dashboard.url}/alerts?run=live")
    expect(row(again, DISK)).to_have_attribute("data-tone-is", "critical")
    expect(again.locator(".hy-toast")).to_have_count(0)
    page.locator(".hy-toast").get_by_role("button", name="Close").click()
    expect(page.locator(".hy-toast")).to_have_count(0)
