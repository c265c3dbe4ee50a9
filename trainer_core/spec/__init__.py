"""Floor 0: the values everything else is written in. Knows the standard library and msgspec, nothing else."""
