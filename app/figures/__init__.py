"""View in, declarative drawing out: plotly layout and traces that name columns, or SVG. Pure; no I/O, no Streamlit."""
