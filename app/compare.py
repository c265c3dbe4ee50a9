"""The Compare page's choices: which runs, and the exact account against a plain baseline. Draws nothing live itself."""

import json
import zlib
from pathlib import Path

import streamlit as st

from app import address
from app.components import mount
from app.feed import Feed
from app.live import MOST_COMPARED
from app.parts import part
from app.views import baseline, words
from app.views.runs import joined, lines, parted
from app.watching import watch
from app.widgets import FIRST_READ_S, choose_run, frame
from trainer_core.spec.errors import RunError, UserError
from trainer_core.spec.records import RunStarted
from trainer_core.telemetry import baselines
from trainer_core.telemetry.comparison import Comparison, compare

TICKED = "runs_ticked"
"""Session key: rows of the run table have just been ticked, which changes the rest of the page."""
MOST_AT_ONCE = 100_000
"""Journal rows of both runs that are read without being asked; a longer account takes many seconds."""


def compare_page() -> None:
    """The whole page."""
    frame()
    top = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    with top:
        feed = choose_run()
    if feed is None:
        return
    names = [run.name for run in watch().runs() if run.name != feed.run_dir.name]
    started = feed.snapshot().latest(RunStarted)
    given = Path(started.baseline).name if started is not None and started.baseline else None
    said = st.query_params.get("with")
    asked = list(dict.fromkeys(name for name in parted(said or "") if name in names))[:MOST_COMPARED]
    usual = [given] if given in names else names[:1]
    key = f"with_{feed.run_dir.name}"
    st.session_state[key] = asked if asked or said == "" else usual  # it follows the address, also "Back"
    with top:
        chosen = st.multiselect(
            "Beside it", names, max_selections=MOST_COMPARED, width=560, key=key,
            placeholder="choose runs to compare with", on_change=_beside, args=(feed.run_dir.name, None),
        )  # fmt: skip
    address.filled_in("with", joined(chosen))
    mount(feed, "compare", chosen)
    all_runs(feed)
    st.markdown("#### Did prediction pay?")
    if not chosen:
        st.caption("Choose a plain baseline run above: `hybrid train TASK --plain` makes one.")
        return
    plain = given if given in chosen else next((name for name in chosen if _plain(name)), None)
    base = st.selectbox(
        "Plain baseline",
        chosen,
        index=chosen.index(plain) if plain is not None else None,
        placeholder="choose a plain run of the same work",
        width=460,
    )
    if base is not None:
        against(feed, base)


@part()
def all_runs(feed: Feed) -> None:
    """Every run under the directory, searched by words; those that are ticked are put beside this one."""
    runs = watch().runs()
    st.markdown(f"#### All runs ({len(runs):,})")
    asked = st.text_input(
        "With the words", key="runs_words", placeholder="parts of a name, task, state or date", width=460
    )
    found = lines(runs, asked)
    names = [line.name for line in found]
    key = f"runs_{zlib.crc32(json.dumps(names).encode())}"  # of other rows: nothing of them is ticked yet
    st.dataframe(
        [
            {"Run": line.address, "Task": line.task, "State": line.state, "Phase": line.phase, "Step": line.step,
             "Done": line.progress, "Started (UTC)": line.started, "Why": line.because}
            for line in found
        ],
        key=key, hide_index=True, height=min(420, 38 + 35 * max(1, len(found))),
        on_select=lambda: _ticked(feed.run_dir.name, names, key), selection_mode="multi-row",
        column_config={
            "Run": st.column_config.LinkColumn(display_text=r"run=(.*)$", help="Opens its Live page"),
            "Done": st.column_config.ProgressColumn(format="%.0f %%", min_value=0, max_value=100),
            "Step": st.column_config.NumberColumn(format="localized"),
        },
    )  # fmt: skip
    st.caption("Newest first, as of now; a press on a head sorts. Tick rows to compare them with the run above.")
    if st.session_state.pop(TICKED, False):
        st.rerun()


def _ticked(run: str, names: list[str], key: str) -> None:
    """Callback of the table: the ticked runs are those beside this one."""
    _beside(run, [names[row] for row in st.session_state[key].selection.rows if names[row] != run])
    st.session_state[TICKED] = True


def _beside(run: str, chosen: list[str] | None) -> None:
    """Callback: these runs are put beside ``run``; None: those of the box."""
    found = st.session_state[f"with_{run}"] if chosen is None else chosen
    address.chosen(run=run, **{"with": joined(found[:MOST_COMPARED])})


def _plain(name: str) -> bool:
    """Whether a run was started as a plain baseline."""
    other = watch().feed(name)
    if other is None:
        return False
    other.wait(FIRST_READ_S)
    started = other.snapshot().latest(RunStarted)
    return started is not None and started.plain


def against(feed: Feed, name: str) -> None:
    """The account of both journals, on the spot when they are short."""
    other = watch().feed(name)
    if other is None:
        st.error(f"There is no run called {words.plain(name)} any more.")
        return
    rows = feed.store.last_seq + other.store.last_seq
    if rows > MOST_AT_ONCE and not st.button(f"Read all {rows:,} rows of both journals", key="compare_exactly"):
        return
    try:
        with st.spinner("Reading both journals"):
            found = _compared(*_journal(feed), *_journal(other))
    except (UserError, RunError) as error:
        st.warning(words.plain(str(error)))
        return
    st.markdown(f"**{words.plain(baseline.headline(found))}**")
    st.table([dict(zip(baseline.HEAD, row, strict=True)) for row in baseline.table(found)])
    for note in found.notes:
        st.caption(f"▲ {words.plain(note)}")


def _journal(feed: Feed) -> tuple[str, int, str]:
    """Where it is, how far it goes, and which one it is."""
    return str(feed.run_dir), feed.store.last_seq, feed.journal_id


@st.cache_data(show_spinner=False, max_entries=16)
def _compared(run_dir: str, seq: int, journal: str, base_dir: str, base_seq: int, base_journal: str) -> Comparison:
    """Kept until either journal has grown or is another one."""
    return compare(baselines.read(Path(run_dir)), baselines.read(Path(base_dir)))
