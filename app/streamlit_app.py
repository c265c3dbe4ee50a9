"""The frame around every page: configuration, navigation, which run. Computes and draws nothing itself."""

import streamlit as st

st.set_page_config(page_title="Hybrid training", page_icon="◐", layout="wide", initial_sidebar_state="collapsed")

page = st.navigation(
    [
        st.Page("pages/live.py", title="Live", icon=":material/monitoring:", default=True),
        st.Page("pages/control.py", title="Control", icon=":material/tune:"),
    ],
    position="top",
)
page.run()
