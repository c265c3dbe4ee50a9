"""Floor 2: records out, commands in. Knows files and sockets; never torch, numpy or streamlit."""
