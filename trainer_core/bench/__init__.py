"""``hybrid bench engine``: hybrid training raced against plain training at equal wall clock. It tunes no engine.

plan      which arms race on a task, and why            race      turns by slices of wall clock, one thread
arms      one training run each, plain or hybrid        steps     overhead of a full step, memory beside plain training
results   what was measured: the JSON                   figures   what follows from it: speed-ups, goals, met or missed
recorded  results of earlier runs, put together
markdown  docs/benchmarks.md and the terminal's text, from results alone
"""
