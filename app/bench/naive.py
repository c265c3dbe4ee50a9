"""The control of the benchmark: the page one writes first. Twelve ``st.plotly_chart`` in a fragment, the whole journal
read at each tick. ``streamlit run naive.py -- RUN_DIR``.
"""

import sys
from pathlib import Path

import plotly.graph_objects as go
import streamlit as st

from trainer_core.telemetry.tables import read_run

SIGNALS = (
    "loss", "loss_ema", "loss_deviation", "predicted_loss", "prediction_error", "relative_error", "confidence",
    "grad_norm", "grad_variance", "update_norm", "param_norm", "learning_rate",
)  # fmt: skip
SHOWN = 2000


@st.fragment(run_every=1.0)
def charts() -> None:
    """All of it, anew."""
    table = read_run(Path(sys.argv[1])).tail(SHOWN)
    if table.height:
        st.markdown(f"step **{table['step'][-1]}**")
    for signal in SIGNALS:
        figure = go.Figure(go.Scatter(x=table["step"].to_list(), y=table[signal].to_list(), name=signal))
        st.plotly_chart(figure, key=signal)


charts()
