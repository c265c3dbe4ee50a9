"""Layout of the Live page."""

import streamlit as st

from app.live import component_data, component_source
from app.widgets import choose_run, frame

script, style = component_source()
live = st.components.v2.component("hybrid_live", js=script, css=style, isolate_styles=False)

frame()
feed = choose_run()
if feed is not None:
    live(key="live", data=component_data(feed.run_dir.name))
