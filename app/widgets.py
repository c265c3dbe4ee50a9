"""What pages are built from: run chooser, command buttons, command list. Computes nothing about training."""

import shlex
import time
from pathlib import Path

import streamlit as st

from app import address, control
from app.feed import Feed
from app.figures import now as now_figure
from app.parts import part
from app.theme import TOKENS
from app.views import words
from app.views.commands import prediction_locked, state_rev
from app.views.knobs import knobs
from app.views.settings import live_settings
from app.views.strip import strip
from app.watching import watch
from trainer_core.spec.commands import Command

ASK_AGAIN_S = 3.0
ASKING = "asking"
"""Session key: a dialog is open, which a redraw of the whole page would close."""
DRAWING = "drawing"
"""Session key: the page's forms are being drawn; the first look at the run since then is part of it."""
FIRST_READ_S = 3.0
RUN_BOX = "run_box"
"""Session key: the run chooser."""
FRAME = """<style>
[data-testid="stMainBlockContainer"] { padding: 3.9rem 1.6rem 2rem; }
@media (max-width: 1150px) {
  .st-key-wide > * > [data-testid="stHorizontalBlock"],
  .st-key-wide > [data-testid="stHorizontalBlock"] { flex-wrap: wrap; }
  .st-key-wide > * > * > [data-testid="stColumn"], .st-key-wide > * > [data-testid="stColumn"] { min-width: 100%; }
}
@media (min-width: 1151px) { [data-testid="stLayoutWrapper"]:has(> .st-key-newest_of_mine) { display: none; } }
[data-testid="stLayoutWrapper"]:has(> .st-key-newest_of_mine):not(:has([data-testid="stHtml"])) { display: none; }
[data-testid="stAppDeployButton"] { display: none; }
[data-testid="stHeader"] a:focus-visible, [data-testid="stSidebarNav"] a:focus-visible {
  outline: 2px solid currentColor; outline-offset: -2px;
}
[data-testid="stLayoutWrapper"]:has(> [class*="st-key-address_"]) { display: none; }
</style>"""
MARK = {
    "working": "●", "paused": "❚❚", "stalled": "▲", "crashed": "✖", "failed": "✖", "finished": "✓", "stopped": "■",
}  # fmt: skip


def frame() -> None:
    """Margins that leave room for the charts, and captions that can be read: Streamlit's own are too pale."""
    captions = '[data-testid="stCaptionContainer"], [data-testid="stCaptionContainer"] p'
    ink = f"color: {TOKENS[mode()]['muted']}; opacity: 1 !important;"
    st.html(f"{FRAME}<style>{captions} {{ {ink} }}</style>")


def choose_run(wait: bool = True) -> Feed | None:
    """The run of the address (``?run=``) or the newest one, with a box to switch; None while there is none.

    A page that is drawn once from what the run says has to ``wait`` until it has been read: FIRST_READ_S at most.
    """
    watched = watch()
    runs = watched.runs()
    if not runs:
        _no_runs(watched.runs_dir)
        return None
    labels = {
        run.name: f"{MARK.get(run.status.state, '·')} {words.short(run.name)} · {run.status.state}" for run in runs
    }
    asked = st.query_params.get("run") or st.session_state.get("chosen_run")
    if asked is not None and asked not in labels:
        st.warning(words.plain(f"There is no run called {asked} in {watched.runs_dir}. Shown: the newest one."))
    names = list(labels)
    st.session_state[RUN_BOX] = asked if asked in labels else names[0]  # it follows the address, also "Back"
    chosen = st.selectbox(
        "Run",
        names,
        key=RUN_BOX,
        format_func=lambda name: labels.get(name, name),
        on_change=lambda: address.chosen(run=st.session_state[RUN_BOX]),
        width=460,
        label_visibility="collapsed",
    )
    address.filled_in("run", chosen)
    st.session_state["chosen_run"] = chosen
    feed = watched.feed(chosen)
    if feed is not None and wait and not feed.wait(FIRST_READ_S):
        part(run_every=1.0)(_still_reading)(feed)
    return feed


def _still_reading(feed: Feed) -> None:
    if not feed.wait(0.0):
        st.caption("Reading the journal…")


def _no_runs(runs_dir: Path) -> None:
    st.subheader("No run yet")
    there = "Nothing in {} has a journal." if runs_dir.is_dir() else "There is no directory {} yet."
    st.write(f"{there.format(f'`{runs_dir}`')} Start one, and it appears here by itself:")
    first = shlex.join(["hybrid", "train", "digits", "--run-dir", str(runs_dir / "first")])
    st.code(f"hybrid demo\n{first}", language="bash")
    _look_again()


@part(run_every=2.0)
def _look_again() -> None:
    if watch().runs():
        st.rerun()


def submit(
    run_dir: Path, command_id: str, command: Command, how: control.How | None = None, confirm: bool = False
) -> None:
    """Send, and remember what was heard, for the list."""
    sent = st.session_state.setdefault("sent", {})
    sent[command_id] = control.send(run_dir, command_id, command, confirm=confirm, how=how)


def only_here(feed: Feed, known: set[str]) -> list[control.Sent]:
    """Commands of this session that the journal does not have (yet); those without an answer are asked about again."""
    mine: dict[str, control.Sent] = st.session_state.setdefault("sent", {})
    waiting = {key: sent for key, sent in mine.items() if sent.run == feed.run_dir.name and key not in known}
    now = time.monotonic()
    due = now >= st.session_state.get("ask_again_at", 0.0)
    for key, sent in waiting.items():
        if due and control.unsettled(sent, now):
            mine[key] = waiting[key] = control.ask_again(feed.run_dir, sent)
            st.session_state["ask_again_at"] = now + ASK_AGAIN_S
    return list(waiting.values())


def mode() -> str:
    """The theme the reader has: light or dark."""
    return "dark" if st.context.theme.type == "dark" else "light"


@part(run_every=1.0)
def now_line(feed: Feed) -> None:
    """One line of where the run is, so that nobody has to leave the page to see what a command did."""
    if feed.closed:  # a page out of sight asks once a minute
        st.rerun()
    if feed.connection.error:
        st.error(f"Watching is troubled: {words.plain(feed.connection.error)}")
    if feed.status is None:
        st.caption("Nothing of this run has been read yet.")
        return
    now = strip(feed.snapshot(), feed.status, str(feed.run_dir), time.time())
    st.html(now_figure.html(now, mode()))
    drawing = st.session_state.pop(DRAWING, False)  # the whole page is: what was pressed on it is still to be done
    if not (drawing or st.session_state.get(ASKING)) and st.session_state.get("form_state") != form_state(feed):
        st.rerun()


def form_state(feed: Feed) -> tuple[object, ...]:
    """What the buttons and forms of the Control page depend on; when it changes they are drawn anew."""
    snapshot = feed.snapshot()
    state = feed.status.state if feed.status is not None else ""
    return (
        state,
        prediction_locked(snapshot),
        tuple(live.value for live in live_settings(snapshot)),
        tuple(knobs(snapshot)),
        state_rev(snapshot),
    )


def remember_forms(feed: Feed) -> None:
    """Called when a page draws its forms: no dialog is open now, and this is what they were drawn from."""
    st.session_state[ASKING] = False
    st.session_state[DRAWING] = True
    st.session_state["form_state"] = form_state(feed)
