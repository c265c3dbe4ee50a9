"""The measured account of a run, for the end of the Reference page. A process of its own reads the journal."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import streamlit as st

from app.feed import Feed
from app.views import account as view
from app.views import words
from app.views.configuration import nearest
from app.views.settings import present_config

SHORT = 30_000
"""Journal rows that are read without being asked."""
LONGEST_S = 300.0


def account(feed: Feed) -> None:
    """Expected against measured; on the spot for short runs, else when it is asked for."""
    config = present_config(feed.snapshot())
    if config is None or feed.snapshot().own_loop:
        return
    st.markdown("#### Expected and measured")
    seq = feed.store.last_seq
    settled = feed.status is not None and feed.status.state in ("finished", "stopped", "failed", "crashed")
    st.caption("Read from the whole journal; the figures are of the moment you asked for them.")
    asked = st.button(f"Read {seq:,} rows and show the account", key="read_account")
    if not asked and not (settled and seq <= SHORT):
        return
    try:
        with st.spinner("Reading the journal"):
            found = _report(str(feed.run_dir), seq, feed.journal_id)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        st.warning(f"The report could not be made: {words.plain(str(error))}")
        return
    preset, agree, of = nearest(config)
    st.table(view.rows(found, preset))
    st.caption(f"Expected of the nearest preset, {preset} ({agree} of {of} of its settings agree).")


@st.cache_data(show_spinner=False, max_entries=8)
def _report(run_dir: str, seq: int, journal: str) -> dict[str, Any]:
    """``hybrid report --json``, kept until the journal is longer or another. Raises ValueError with its last words."""
    words = [sys.executable, "-m", "trainer_core", "report", str(Path(run_dir)), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=LONGEST_S, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise ValueError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no words")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
