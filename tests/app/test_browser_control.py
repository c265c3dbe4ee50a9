"""Steering a real run from the Control page: reasons, refusals, two operators, keys alone, quick presses, the code."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, WebSocketRoute, expect
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from tests.app.conftest import ROOT, Dashboard, train, unlock, until
from tests.app.test_browser import records
from tests.conftest import end_agents
from trainer_core.spec.commands import (
    ApplyRemedy,
    Command,
    CommandState,
    ForcePhase,
    Pause,
    Refusal,
    Resume,
    SaveCheckpoint,
    ScaleLearningRate,
    SetGradientClip,
    SetThreshold,
    SetWeightDecay,
    Stop,
)
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import CommandChanged

PATIENCE_S = 40.0
FOCUSED = """() => {
    const at = document.activeElement;
    const role = at.getAttribute('role') ?? (at.type === 'range' ? 'slider' : at.tagName.toLowerCase());
    return role === 'button' ? `button ${at.textContent.trim()}` : role;
}"""
"""The role of what has the focus, and the words of a button."""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Dashboard]]:
    folder = tmp_path_factory.mktemp("steered")
    trainer = train(folder / "runs" / "live", folder / "train.log")
    dashboard = Dashboard(folder / "runs", folder / "dashboard.log")
    yield folder / "runs" / "live", dashboard
    dashboard.end()
    trainer.end()
    end_agents(folder)


@pytest.fixture
def operator(browser: Browser, live: tuple[Path, Dashboard]) -> Iterator[Callable[[str], Page]]:
    """A browser of its own on the Control page, unlocked under a name; an empty name only looks."""
    contexts, errors = [], []

    def open_(who: str) -> Page:
        context = browser.new_context(viewport={"width": 1440, "height": 1900})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * PATIENCE_S)
        page.on("pageerror", lambda error: errors.append(str(error)))
        if who:
            unlock(page, live[1], who)
        page.goto(f"{live[1].url}/control?run=live")
        expect(page.get_by_role("button", name="Save checkpoint")).to_be_visible(timeout=1000 * PATIENCE_S)
        expect(page.get_by_test_id("stTabs")).to_be_visible(timeout=1000 * PATIENCE_S)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not errors, errors


def ended(run_dir: Path, command: Command, state: CommandState = CommandState.APPLIED) -> CommandChanged:
    """The journal's row of a command's end; of equal commands the newest."""

    def find() -> CommandChanged | None:
        rows = [r for r in records(run_dir) if isinstance(r, CommandChanged) and r.command == command]
        return next((row for row in reversed(rows) if row.state is state), None)

    found = until(find, PATIENCE_S, f"{command} is {state.value}")
    assert found is not None
    return found


def row_of(page: Page, change: CommandChanged) -> Locator:
    return page.get_by_test_id("hy-commands").locator(f'[data-command="{change.command_id}"]')


def shown(page: Page, change: CommandChanged) -> None:
    """The page says of a command what the journal says."""
    row = row_of(page, change)
    expect(row).to_have_attribute("data-state", change.state.value, timeout=1000 * PATIENCE_S)
    if change.state is CommandState.APPLIED:
        expect(row).to_contain_text(f"applied at step {change.step:,}")
    if change.before is not None and change.after is not None:
        expect(row).to_contain_text(f"{change.before} → {change.after}")


def settled(page: Page, run_dir: Path, command: Command, state: CommandState = CommandState.APPLIED) -> CommandChanged:
    change = ended(run_dir, command, state)
    shown(page, change)
    return change


def fill(page: Page, key: str, value: str) -> None:
    """Type into a field and press its button."""
    form = page.locator(f".st-key-field_{key}")
    form.locator("input").fill(value)
    form.locator("button[type=submit]").click()


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def test_a_reason_goes_with_one_command_and_the_audit_is_a_file(
    live: tuple[Path, Dashboard], operator: Callable[[str], Page]
) -> None:
    run_dir, _ = live
    page = operator("Ann")
    page.locator(".st-key-how_reason input").fill("to look around")
    press(page, "Pause training")
    paused = settled(page, run_dir, Pause())
    assert paused.reason == "to look around" and paused.actor == "operator"
    assert re.fullmatch(r"“Ann” \(name as typed, session \w{4}\)", paused.on_behalf_of)
    expect(row_of(page, paused)).to_contain_text(f"by operator for {paused.on_behalf_of}")
    expect(page.locator(".st-key-how_reason input")).to_have_value("")
    press(page, "Resume training")
    resumed = settled(page, run_dir, Resume())
    assert resumed.reason == "" and resumed.on_behalf_of == paused.on_behalf_of
    page.get_by_role("tab", name="Audit").click()
    with page.expect_download() as got:
        page.get_by_test_id("stDownloadButton").get_by_role("button").click()
    text = Path(got.value.path()).read_text(encoding="utf-8")
    assert "to look around" in text and paused.on_behalf_of in text and resumed.command_id in text


def test_an_emergency_of_the_reference_page_opens_control_filled_in_and_sends_nothing(
    live: tuple[Path, Dashboard], operator: Callable[[str], Page]
) -> None:
    run_dir, dashboard = live
    before = sum(isinstance(record, CommandChanged) for record in records(run_dir))
    for who in ("Ann", ""):
        page = operator(who)
        page.goto(f"{dashboard.url}/reference?run=live")
        page.locator("tr", has_text="Low confidence").get_by_role("button", name="Remedy on Control…").click()
        page.wait_for_url("**/control?**")
        assert "remedy=low_confidence" in page.url and "run=live" in page.url
        expect(page.get_by_role("combobox", name="Problem")).to_have_value("Low confidence", timeout=1000 * PATIENCE_S)
        expect(page.get_by_text("Filled in by the button that led here. Nothing has been sent")).to_be_visible()
        apply = page.get_by_role("button", name="Apply all of it…")
        expect(apply).to_be_enabled() if who else expect(apply).to_be_disabled()
    assert sum(isinstance(record, CommandChanged) for record in records(run_dir)) == before


def test_what_cannot_be_done_is_said(live: tuple[Path, Dashboard], operator: Callable[[str], Page]) -> None:
    """A step that has passed is refused; one that is far away expires."""
    run_dir, _ = live
    page = operator("Ann")
    for step, state, words in (
        ("0", CommandState.REJECTED, "has passed"),
        ("9000000", CommandState.EXPIRED, "not applied within 2 s"),
    ):
        page.locator(".st-key-how_at input").fill(step)
        page.locator(".st-key-how_at input").press("Tab")
        page.locator(".st-key-how_ttl input").fill("2")
        page.locator(".st-key-how_ttl input").press("Tab")
        expect(page.get_by_test_id("stAlert")).to_contain_text(re.compile("has passed: such|would expire before"))
        press(page, "Save checkpoint")
        expect(row_of(page, settled(page, run_dir, SaveCheckpoint(), state))).to_contain_text(words)


def test_what_is_asked_about_first_is_sent_for_the_step_and_the_reason_of_the_panel(
    live: tuple[Path, Dashboard], operator: Callable[[str], Page]
) -> None:
    run_dir, _ = live
    page = operator("Ann")
    for key, text in (("reason", "when it is time"), ("at", "9000000"), ("ttl", "2")):
        page.locator(f".st-key-how_{key} input").fill(text)
        page.locator(f".st-key-how_{key} input").press("Tab")
    expect(page.get_by_test_id("stAlert")).to_contain_text("would expire before")
    press(page, "Stop run…")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Not at once: at step 9,000,000")
    expect(dialog.locator("input")).to_have_value("when it is time")
    dialog.get_by_role("button", name="Stop the run").click()
    change = settled(page, run_dir, Stop(), CommandState.EXPIRED)
    assert change.reason == "when it is time"
    expect(page.locator(".st-key-how_at input")).to_have_value("")


def test_a_remedy_is_refused_when_somebody_changed_what_it_was_read_with(
    live: tuple[Path, Dashboard], operator: Callable[[str], Page]
) -> None:
    run_dir, _ = live
    ann, bob = operator("Ann"), operator("Bob")
    press(ann, "Apply all of it…")
    dialog = ann.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Apply all of it")).to_be_visible()
    fill(bob, "decay_live", "0.04")
    settled(bob, run_dir, SetWeightDecay(0.04))
    dialog.get_by_role("button", name="Apply all of it").click()
    refused = settled(ann, run_dir, ApplyRemedy("nan_loss"), CommandState.REJECTED)
    expect(row_of(ann, refused)).to_contain_text("somebody else changed the run first")


def test_of_two_operators_the_second_is_told_of_the_first(
    live: tuple[Path, Dashboard], operator: Callable[[str], Page]
) -> None:
    run_dir, _ = live
    ann, bob = operator("Ann"), operator("Bob")
    fill(bob, "factor_live", "0.05")
    ask = bob.get_by_role("dialog")
    expect(ask).to_contain_text("can end a run")  # what Bob sees is of this moment
    fill(ann, "decay_live", "0.03")
    hers = settled(ann, run_dir, SetWeightDecay(0.03))
    expect(row_of(bob, hers)).to_be_visible(timeout=1000 * PATIENCE_S)
    ask.get_by_role("button", name="Do it").click()
    refused = bob.get_by_test_id("hy-commands").locator("[data-state=rejected]", has_text="Scale learning rate by 0.05")
    expect(refused).to_contain_text("somebody else changed the run first", timeout=1000 * PATIENCE_S)
    expect(row_of(bob, hers)).to_contain_text("“Ann”")
    expect(bob.get_by_text("Weight decay (now 0.03)")).to_be_visible(timeout=1000 * PATIENCE_S)
    assert not [r for r in records(run_dir) if isinstance(r, CommandChanged)
                and r.command == ScaleLearningRate(0.05) and r.state is CommandState.APPLIED]  # fmt: skip


def test_the_control_page_is_used_by_keys_alone(live: tuple[Path, Dashboard], operator: Callable[[str], Page]) -> None:
    run_dir, _ = live
    page = operator("Ann")

    def tab_to(role: str, words: str = "") -> None:
        for _ in range(120):
            page.keyboard.press("Tab")
            focused = page.evaluate(FOCUSED)
            if focused.startswith(role) and focused.endswith(words):
                return
        raise AssertionError(f"Tab never comes to {role} {words}")

    tab_to("button", "Force full phase")
    page.keyboard.press("Enter")
    settled(page, run_dir, ForcePhase(Phase.FULL))
    tab_to("slider")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".st-key-card_live_confidence_threshold input[type=number]")).to_have_value("0.84")
    expect(page.get_by_test_id("hy-whatif")).to_contain_text("What if:", timeout=1000 * PATIENCE_S)
    expect(page.get_by_test_id("hy-whatif")).to_contain_text("0.85 (in force)")
    tab_to("button", "Apply")
    page.keyboard.press("Enter")
    settled(page, run_dir, SetThreshold("confidence_threshold", 0.84))


def test_a_field_follows_the_run_until_somebody_types_and_then_says_what_changed(
    live: tuple[Path, Dashboard], operator: Callable[[str], Page]
) -> None:
    run_dir, _ = live
    ann, bob = operator("Ann"), operator("Bob")
    hers, his = (page.locator(".st-key-field_decay_live") for page in (ann, bob))
    his.locator("input").fill("0.05")
    send = [sys.executable, "-m", "trainer_core", "send", str(run_dir), "set-weight-decay", "0.02"]
    subprocess.run(send, check=True, timeout=PATIENCE_S, cwd=ROOT)
    expect(his.get_by_role("status")).to_contain_text(
        re.compile(r"Now 0\.02\. Set weight decay to 0\.02 at step [\d,]+, \d\d:\d\d:\d\d UTC, by operator\.")
    )
    expect(his.locator("input")).to_have_value("0.05")
    expect(hers.locator("input")).to_have_value("0.02")
    fill(ann, "decay_live", "0.04")
    settled(ann, run_dir, SetWeightDecay(0.04))
    expect(his.get_by_role("status")).to_contain_text("by operator for “Ann”")
    expect(his.locator("input")).to_have_value("0.05")
    his.locator("button[type=submit]").click()  # Bob has read it, and wants his
    settled(bob, run_dir, SetWeightDecay(0.05))
    for field in (hers, his):
        expect(field.locator("input")).to_have_value("0.05")
        expect(field.locator("output")).to_be_empty()
    hers.locator("input").fill("0.07")
    fill(bob, "decay_live", "0.06")
    hers.get_by_role("button", name="Take 0.06").click()
    expect(hers.locator("input")).to_have_value("0.06")
    expect(hers.get_by_role("button", name="Take")).to_be_hidden()


def test_a_field_sends_from_the_revision_that_it_was_showing(
    live: tuple[Path, Dashboard], operator: Callable[[str], Page]
) -> None:
    """Bob's page does not hear of Ann's change: what he sends of the old one is a conflict."""
    run_dir = live[0]
    ann, bob = operator("Ann"), operator("Bob")
    deaf = [False]

    def relay(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()
        socket.on_message(server.send)
        server.on_message(lambda said: None if deaf[0] else socket.send(said))

    bob.route_web_socket("**/_stcore/stream", relay)
    bob.reload()
    expect(bob.get_by_test_id("stTabs")).to_be_visible(timeout=1000 * PATIENCE_S)
    bob.locator(".st-key-field_clip_live input").fill("7")
    deaf[0] = True
    fill(ann, "decay_live", "0.08")
    settled(ann, run_dir, SetWeightDecay(0.08))
    bob.locator(".st-key-field_clip_live button[type=submit]").click()

    def refused() -> list[Refusal | None]:
        bob.wait_for_timeout(20)
        changes = [r for r in records(run_dir) if isinstance(r, CommandChanged) and r.command == SetGradientClip(7.0)]
        return [change.refusal for change in changes if change.state.final]

    assert until(refused, PATIENCE_S, "it comes to its end") == [Refusal.CONFLICT]


def test_a_press_is_not_lost_to_an_answer_that_is_late(
    live: tuple[Path, Dashboard], operator: Callable[[str], Page]
) -> None:
    """The server's answers are held up while the page goes on asking with what it knew before."""
    page = operator("Ann")
    asked, held, holding = [], [], [False]

    def relay(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()
        socket.on_message(lambda said: (asked.append(said), server.send(said)))
        server.on_message(lambda said: held.append((socket, said)) if holding[0] else socket.send(said))

    def pumped(claim: Callable[[], bool]) -> bool:
        page.wait_for_timeout(20)  # lets messages come in
        return claim()

    page.route_web_socket("**/_stcore/stream", relay)
    page.reload()
    expect(page.get_by_test_id("stTabs")).to_be_visible(timeout=1000 * PATIENCE_S)
    slider = page.locator(".st-key-card_live_confidence_threshold input[type=range]")
    slider.focus()
    begun = float(str(slider.get_attribute("aria-valuetext")))
    holding[0] = True
    page.keyboard.press("ArrowLeft")
    until(lambda: pumped(lambda: any(b"hy-whatif" in said for _, said in held)), PATIENCE_S, "the press is worked")
    before = len(asked)
    until(lambda: pumped(lambda: len(asked) > before), PATIENCE_S, "the page asks again, as it does each second")
    count = len(held)
    until(lambda: pumped(lambda: len(held) > count), PATIENCE_S, "and that is worked, too")
    holding[0] = False
    for socket, said in held:
        socket.send(said)
    number = page.locator(".st-key-card_live_confidence_threshold input[type=number]")
    expect(page.get_by_test_id("hy-whatif")).to_contain_text(f"{begun - 0.01:g}", timeout=1000 * PATIENCE_S)
    page.keyboard.press("ArrowLeft")
    expect(slider).to_have_attribute("aria-valuetext", f"{begun - 0.02:g}")
    expect(number).to_have_value(f"{begun - 0.02:g}")
    expect(page.get_by_test_id("hy-whatif")).to_contain_text(f"{begun - 0.02:g}", timeout=1000 * PATIENCE_S)


def test_a_part_that_is_lost_on_the_way_does_not_break_the_page(
    live: tuple[Path, Dashboard], operator: Callable[[str], Page]
) -> None:
    """As Streamlit does it under load: what redraws itself is dropped from a run of the whole page."""
    page, lost, losing, finished = operator("Ann"), [0], [False], [0]

    def pass_on(socket: WebSocketRoute, said: str | bytes) -> None:
        message = ForwardMsg.FromString(said if isinstance(said, bytes) else said.encode())
        if losing[0] and message.delta.fragment_id:
            lost[0] += 1
            return
        if message.WhichOneof("type") == "script_finished":
            losing[0] &= message.script_finished != ForwardMsg.FINISHED_SUCCESSFULLY  # that is: of the whole page
            finished[0] += not losing[0]
        socket.send(said)

    def relay(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()
        socket.on_message(server.send)
        server.on_message(lambda said: pass_on(socket, said))

    page.route_web_socket("**/_stcore/stream", relay)
    page.reload()
    expect(page.get_by_test_id("stTabs")).to_be_visible(timeout=1000 * PATIENCE_S)
    losing[0], finished[0] = True, 0
    page.locator(".st-key-how_reason input").fill("a run of the whole page")
    page.locator(".st-key-how_reason input").press("Tab")
    until(lambda: page.wait_for_timeout(20) or finished[0] > 5, PATIENCE_S, "it is drawn, and its parts again")
    assert lost[0] > 5, "now_line, the newest command, the list, the cards and the learning rate"


def test_who_only_looks_is_told_how_to_steer_and_the_code_unlocks(
    live: tuple[Path, Dashboard], operator: Callable[[str], Page]
) -> None:
    _, dashboard = live
    page = operator("")
    seen: list[str] = []
    page.on("websocket", lambda ws: ws.on("framereceived", lambda frame: seen.append(str(frame))))
    page.reload()
    expect(page.get_by_text("You are looking only.")).to_be_visible(timeout=1000 * PATIENCE_S)
    for name in ("Pause training", "Save checkpoint", "Roll back…", "Stop run…", "Force full phase"):
        expect(page.get_by_role("button", name=name)).to_be_disabled()
    page.get_by_text("Unlock steering").first.click()
    page.get_by_label("Operator code").fill("AAAA-AAAA-AAAA")
    page.get_by_role("button", name="Unlock steering").click()
    expect(page.get_by_text("That is not the operator code.")).to_be_visible()
    page.get_by_label("Operator code").fill(dashboard.code)
    page.get_by_label("Your name").fill("Eve")
    page.get_by_role("button", name="Unlock steering").click()
    expect(page.get_by_text("You may steer as “Eve” (name as typed, session")).to_be_visible(timeout=1000 * PATIENCE_S)
    expect(page.get_by_role("button", name="Save checkpoint")).to_be_enabled()
    (cookie,) = [c for c in page.context.cookies() if c["name"].startswith("hybrid_session")]
    keys = [path.read_text(encoding="utf-8") for path in (live[0] / "keys").glob("*.key")]
    hidden = [dashboard.code, cookie["value"], *(key.split('"secret":')[1].split('"')[1] for key in keys)]
    text = "".join(seen) + page.content()
    assert len(text) > 10_000 and not [secret for secret in hidden if secret in text]
    page.get_by_role("button", name="Lock steering").click()
    expect(page.get_by_text("You are looking only.")).to_be_visible(timeout=1000 * PATIENCE_S)


def test_the_link_unlocks_and_leaves_the_address(live: tuple[Path, Dashboard], browser: Browser) -> None:
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(live[1].link)
        assert "code" not in page.url
        page.goto(f"{live[1].url}/control?run=live")
        expect(page.get_by_text("You may steer as session")).to_be_visible(timeout=1000 * PATIENCE_S)
    finally:
        context.close()


def test_stop_is_asked_about_and_ends_the_run(live: tuple[Path, Dashboard], operator: Callable[[str], Page]) -> None:
    run_dir, _ = live
    page = operator("Ann")
    page.get_by_role("button", name="Stop run…").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop the run").click()
    settled(page, run_dir, Stop())
    expect(page.get_by_test_id("hy-now")).to_contain_text("stopped", timeout=1000 * PATIENCE_S)
