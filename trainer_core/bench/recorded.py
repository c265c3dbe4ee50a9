"""Results that were measured before, read from their JSON and put together. Measures nothing."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from trainer_core.bench.results import FORMAT, Results
from trainer_core.spec.errors import UserError


def read(files: Sequence[Path]) -> Results:
    """The results in ``files``, each written by ``hybrid bench engine --json``, as one. Raises UserError."""
    return merged([_one(file) for file in files])


def _one(file: Path) -> Results:
    try:
        results = msgspec.json.decode(file.read_bytes(), type=Results)
    except OSError as error:
        raise UserError(f"--from {file}: cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise UserError(f"--from {file}: is no JSON of hybrid bench engine: {error}") from None
    if results.format != FORMAT:
        raise UserError(f"--from {file}: has format {results.format}; this version reads format {FORMAT}")
    return results


def merged(parts: Sequence[Results]) -> Results:
    """One result of several. Raises UserError when a task is in two of them, or their machines or versions differ."""
    first = parts[0]
    tasks = [task for part in parts for task in part.tasks]
    names = [task.task for task in tasks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"--from: {', '.join(twice)} is in two files; give each task once")
    for part in parts[1:]:
        here, there = _place(first), _place(part)
        if here != there:
            raise UserError(f"--from: the files come from different machines or versions ({here} and {there})")
    return Results(
        format=FORMAT,
        command=" and ".join(part.command for part in parts),
        quick=any(part.quick for part in parts),
        seeds=tuple(sorted({seed for part in parts for seed in part.seeds})),
        machine=first.machine,
        versions=first.versions,
        took_seconds=sum(part.took_seconds for part in parts),
        tasks=tuple(tasks),
        overhead=max((part.overhead for part in parts), key=lambda overhead: overhead.pairs),
        memory=tuple(memory for part in parts for memory in part.memory),
    )


def _place(results: Results) -> dict[str, str]:
    return {k: v for k, v in {**results.machine, **results.versions}.items() if not k.startswith("load")}
