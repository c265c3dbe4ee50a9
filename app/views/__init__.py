"""Snapshot in, frozen dataclass ready to draw out. Pure: no Streamlit, no plotly, no clock of its own."""
