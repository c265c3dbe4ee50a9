"""The Health page; which of the user's own metrics come first is chosen under it and kept in the address."""

import streamlit as st

from app.components import live_page
from app.feed import Feed

CHOICE = "metrics_first"


def first(feed: Feed) -> list[str]:
    """The chosen metrics: what was chosen here, or what the address names."""
    known = feed.snapshot().side.metrics
    if CHOICE not in st.session_state:
        st.session_state[CHOICE] = st.query_params.get_all("metric")
    chosen = [name for name in st.session_state[CHOICE] if name in known]
    st.session_state[CHOICE] = chosen
    st.query_params["metric"] = chosen
    return chosen


feed = live_page("health", first)
if feed is not None and feed.snapshot().side.metrics:
    st.multiselect("Metrics shown first", list(feed.snapshot().side.metrics), key=CHOICE, max_selections=24, width=700)
