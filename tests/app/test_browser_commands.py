"""Every kind of command from a page to the journal and back: one browser, one run, a row of the table a press."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.app.conftest import ROOT, Dashboard, Process, unlock, until
from tests.app.test_browser import records
from tests.conftest import end_agents
from trainer_core.spec.commands import (
    AcknowledgeAlert,
    Annotate,
    ApplyRemedy,
    Command,
    CommandState,
    ForcePhase,
    LockPrediction,
    Pause,
    Refusal,
    Resume,
    Rollback,
    SaveCheckpoint,
    ScaleLearningRate,
    SetGradientClip,
    SetKnob,
    SetLearningRate,
    SetPhaseLength,
    SetThreshold,
    SetWeightDecay,
    SilenceAlert,
    Stop,
    kind_of,
)
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import AlertRaised, CommandChanged

PATIENCE_S = 40.0
WAIT_MS = 1000 * PATIENCE_S
RULE = "plateau"


@dataclass(frozen=True)
class Run:
    """The run, and the one page that steers it."""

    run_dir: Path
    page: Page
    url: str

    def go(self, place: str) -> None:
        """Open a page of the dashboard, unless it is open."""
        address = f"{self.url}/{place}?run=live"
        if not self.page.url.startswith(f"{self.url}/{place}"):
            self.page.goto(address)
        ready = ".hy-entries > li[data-id]" if place == "alerts" else "[data-testid=stTabs]"
        self.page.wait_for_selector(ready, timeout=WAIT_MS)

    def changes(self) -> list[CommandChanged]:
        return [record for record in records(self.run_dir) if isinstance(record, CommandChanged)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("commands")
    run_dir = folder / "runs" / "live"
    trainer = Process([sys.executable, "-m", "tests.app.steered", str(run_dir)], folder / "train.log", ROOT)
    until(lambda: run_dir.joinpath("journal.db").exists() and alerted(run_dir), 120, "the run raises its alert")
    dashboard = Dashboard(folder / "runs", folder / "dashboard.log")
    errors: list[str] = []
    context = browser.new_context(viewport={"width": 1440, "height": 1900})
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.on("pageerror", lambda error: errors.append(str(error)))
    unlock(page, dashboard, "Ann")
    yield Run(run_dir, page, dashboard.url)
    context.close()
    dashboard.end()
    trainer.end()
    end_agents(folder)
    assert not errors, errors


def alerted(run_dir: Path) -> bool:
    return any(isinstance(record, AlertRaised) and record.rule == RULE for record in records(run_dir))


# -- what is pressed -------------------------------------------------------------------------------------------------

Press = Callable[[Page], None]


def button(name: str) -> Press:
    """A button that sends at once."""
    return lambda page: page.get_by_role("button", name=name, exact=True).click()


def field(key: str, value: str) -> Press:
    """A number typed into a field, and its button."""

    def fill(page: Page) -> None:
        held = page.locator(f".st-key-field_{key}_live")
        held.locator("input").fill(value)
        held.locator("button[type=submit]").click()

    return fill


def note(page: Page) -> None:
    """A text typed into its form, and its button."""
    held = page.locator("[data-testid=stForm]", has=page.locator(".st-key-note_live"))
    held.locator("input").fill("half way")
    held.locator("input").press("Tab")
    held.get_by_test_id("stFormSubmitButton").get_by_role("button").click()


def asked(press: Press, says: str, answer: str) -> Press:
    """A press that leads to a question: what it says, and the button that answers it."""

    def ask(page: Page) -> None:
        press(page)
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text(says, timeout=WAIT_MS)
        dialog.get_by_role("button", name=answer).click()

    return ask


def threshold(page: Page) -> None:
    """A value typed beside the slider."""
    exactly = page.locator(".st-key-card_live_divergence_threshold input[type=number]")
    exactly.fill("4")
    exactly.press("Tab")
    page.locator(".st-key-apply_divergence_threshold button").click()


def knob(page: Page) -> None:
    """The slider of the script's own knob, moved to its end by key."""
    held = page.locator(".st-key-card_knob_live_dropout")
    held.locator("input[type=range]").press("End")
    held.get_by_role("button", name="Apply").click()


def remedy(page: Page) -> None:
    """An emergency action chosen by its problem."""
    page.get_by_role("combobox", name="Problem").click()
    page.get_by_role("option", name="Gradient explosion").click()
    expect(page.get_by_text("gradient_clip_norm: 2 → 1")).to_be_visible(timeout=WAIT_MS)
    page.get_by_role("button", name="Apply all of it…").click()


def alert(label: str) -> Press:
    """A button of the open alert in the list."""

    def press(page: Page) -> None:
        row = page.locator(f'.hy-entries > li[data-rule="{RULE}"]').first
        row.get_by_role("button", name=label).click()

    return press


@dataclass(frozen=True)
class Row:
    """One press and what must come of it."""

    does: Press
    sent: Command | type[Command]
    """The command, or its type where the page chooses what it names."""
    state: CommandState = CommandState.APPLIED
    before_after: tuple[str, str] | None = None
    detail: str = ""
    place: str = "control"


TABLE: dict[str, Row] = {
    "pause": Row(button("Pause training"), Pause()),
    "lock": Row(button("Lock prediction"), LockPrediction(True), before_after=("unlocked", "locked")),
    "force full": Row(button("Force full phase"), ForcePhase(Phase.FULL)),
    "force correct, refused": Row(
        button("Force correct phase"), ForcePhase(Phase.CORRECT), CommandState.REJECTED, detail="no way from FULL"
    ),
    "force predict, refused": Row(
        button("Force predict phase"), ForcePhase(Phase.PREDICT), CommandState.REJECTED, detail="unlocked"
    ),
    "unlock": Row(button("Unlock prediction"), LockPrediction(False), before_after=("locked", "unlocked")),
    "acknowledge": Row(alert("Acknowledge"), AcknowledgeAlert, place="alerts"),
    "silence": Row(asked(alert("Silence…"), RULE, "Silence"), SilenceAlert(RULE, 500), place="alerts"),
    "threshold": Row(threshold, SetThreshold("divergence_threshold", 4.0), before_after=("3", "4")),
    "rate": Row(field("rate", "0.0005"), SetLearningRate(0.0005)),
    "factor": Row(field("factor", "0.5"), ScaleLearningRate(0.5)),
    "factor, tenfold": Row(asked(field("factor", "0.05"), "can end a run", "Do it"), ScaleLearningRate(0.05)),
    "clip": Row(field("clip", "2"), SetGradientClip(2.0)),
    "decay": Row(field("decay", "0.02"), SetWeightDecay(0.02), before_after=("0.01", "0.02")),
    "length of FULL": Row(field("length_full", "35"), SetPhaseLength(Phase.FULL, 35)),
    "length of PREDICT": Row(field("length_predict", "25"), SetPhaseLength(Phase.PREDICT, 25)),
    "length of CORRECT": Row(field("length_correct", "4"), SetPhaseLength(Phase.CORRECT, 4)),
    "knob": Row(knob, SetKnob("dropout", 0.5), before_after=("0.1", "0.5")),
    "note": Row(note, Annotate("half way")),
    "checkpoint": Row(button("Save checkpoint"), SaveCheckpoint()),
    "remedy": Row(asked(remedy, "gradient_clip_norm", "Apply all of it"), ApplyRemedy("gradient_explosion")),
    "rollback": Row(asked(button("Roll back…"), "Goes back: weights", "Roll back to step"), Rollback),
    "resume": Row(button("Resume training"), Resume()),
    "stop": Row(asked(button("Stop run…"), "saves a checkpoint", "Stop the run"), Stop()),
}
"""In the order in which one run goes through them."""


def test_the_table_has_every_kind_of_command() -> None:
    sent = {row.sent if isinstance(row.sent, type) else type(row.sent) for row in TABLE.values()}
    assert {kind for kind in get_args(Command) if kind not in sent} == set()
    forced = {row.sent.phase for row in TABLE.values() if isinstance(row.sent, ForcePhase)}
    assert forced == set(Phase) - {Phase.WARMUP}


@pytest.mark.parametrize("name", list(TABLE))
def test_a_press_goes_to_the_journal_and_comes_back(run: Run, name: str) -> None:
    row = TABLE[name]
    run.go(row.place)
    earlier = {change.command_id for change in run.changes()}
    row.does(run.page)

    def find() -> CommandChanged | None:
        new = [change for change in run.changes() if change.command_id not in earlier]
        return next((change for change in new if change.state.final), None)

    change = until(find, PATIENCE_S, f"{name}: the command comes to its end")
    assert change is not None
    assert isinstance(change.command, row.sent) if isinstance(row.sent, type) else change.command == row.sent
    assert change.state is row.state, change
    assert (change.actor, change.on_behalf_of.split(" (")[0]) == ("operator", "“Ann”")
    assert row.before_after in (None, (change.before, change.after))
    assert row.detail in change.detail and change.refusal is (Refusal.PRECONDITION if row.detail else None)
    listed = run.page.get_by_test_id("hy-commands").locator(f'[data-command="{change.command_id}"]')
    expect(listed).to_have_attribute("data-state", row.state.value, timeout=WAIT_MS)
    if row.state is CommandState.APPLIED:
        expect(listed).to_contain_text(f"applied at step {change.step:,}")
    else:
        expect(listed).to_contain_text("refused")
        expect(listed).to_contain_text(change.detail)
    others = {late.command_id for late in run.changes()} - earlier - {change.command_id}
    assert not others, f"one press of {kind_of(change.command)} sent more than one command"
