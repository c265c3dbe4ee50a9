"""Layout only, a file a page; run by Streamlit, never imported."""
