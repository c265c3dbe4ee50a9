"""The frame around every page: configuration, navigation, which run. Computes and draws nothing itself."""

import streamlit as st

from app.steering import looking

st.set_page_config(page_title="Hybrid training", page_icon="◐", layout="wide", initial_sidebar_state="collapsed")

page = st.navigation(
    [
        st.Page("pages/live.py", title="Live", icon=":material/monitoring:", default=True),
        st.Page("pages/phases.py", title="Phases", icon=":material/cycle:"),
        st.Page("pages/health.py", title="Health", icon=":material/ecg_heart:"),
        st.Page("pages/alerts.py", title="Alerts", icon=":material/warning:"),
        st.Page("pages/control.py", title="Control", icon=":material/tune:"),
        st.Page("pages/compare.py", title="Compare", icon=":material/stacked_line_chart:"),
        st.Page("pages/reference.py", title="Reference", icon=":material/menu_book:"),
    ],
    position="top",
)
if looking():
    page.run()
