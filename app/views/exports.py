"""What of a run can be taken along as a file. Pure; writes nothing."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Export:
    """One kind of file. ``words`` are those of the ``hybrid`` command that writes it, ``RUN`` and ``OUT`` filled in."""

    label: str
    note: str
    ending: str
    media: str
    words: tuple[str, ...] = ()
    printed: bool = False
    """The command prints it, instead of writing OUT."""
    from_heading: str = ""
    """Only the part of the text from the line that begins with these words."""


_TEXT, _JSON, _BYTES = "text/plain; charset=utf-8", "application/json", "application/octet-stream"

EXPORTS: dict[str, Export] = {
    "steps-parquet": Export(
        "Steps, Parquet", "every measured step, every field, all attempts", "parquet", _BYTES, ("export", "RUN", "OUT")
    ),
    "steps-csv": Export("Steps, CSV", "the same as text", "csv", "text/csv; charset=utf-8", ("export", "RUN", "OUT")),
    "all-parquet": Export(
        "Every record, Parquet", "events as JSON beside the steps", "all.parquet", _BYTES,
        ("export", "RUN", "OUT", "--all"),
    ),
    "log": Export(
        "Training log, text", "phase by phase, as the document's example session", "log.txt", _TEXT,
        ("report", "RUN", "--all"), printed=True,
    ),
    "statistics": Export(
        "Final statistics, text", "as the document ends its example, with the ledger", "statistics.txt", _TEXT,
        ("report", "RUN"), printed=True, from_heading="Final Statistics",
    ),
    "report": Export(
        "Report, JSON", "every figure of the report for programs", "report.json", _JSON, ("report", "RUN", "--json"),
        printed=True,
    ),
    "config": Export("Settings, TOML", "in force now; hybrid train --config reads it", "toml", _TEXT),
    "metadata": Export(
        "Run metadata, JSON", "where it ran, on what, with which versions and command line", "metadata.json", _JSON
    ),
}  # fmt: skip
"""By the name that ``/live/export?kind=`` takes."""
