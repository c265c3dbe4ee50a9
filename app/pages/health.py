"""The Health page; which of the user's own metrics come first is chosen under it and kept in the address."""

import streamlit as st

from app import address
from app.components import live_page
from app.feed import Feed
from app.live import MOST_CHOSEN
from app.widgets import FIRST_READ_S

CHOICE = "metrics_first"


def first(_feed: Feed) -> list[str]:
    """The metrics that the address names; the box follows it, also "Back"."""
    st.session_state[CHOICE] = list(dict.fromkeys(st.query_params.get_all("metric")))[:MOST_CHOSEN]
    return list(st.session_state[CHOICE])


feed = live_page("health", first)
if feed is not None and feed.wait(FIRST_READ_S):
    known, run = feed.snapshot().side.metrics, feed.run_dir.name
    st.session_state[CHOICE] = [name for name in st.session_state[CHOICE] if name in known]
    if known:
        st.multiselect(
            "Metrics shown first", list(known), key=CHOICE, max_selections=MOST_CHOSEN, width=700,
            on_change=lambda: address.chosen(run=run, metric=st.session_state[CHOICE]),
        )  # fmt: skip
