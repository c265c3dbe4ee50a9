"""Words of ``hybrid send`` that a run has added: its knobs, by name. Reads the run's journal; sends nothing."""

from contextlib import closing
from pathlib import Path

from trainer_core.cli.verbs import VERBS, understood
from trainer_core.spec.commands import Command
from trainer_core.spec.errors import UserError
from trainer_core.spec.knobs import KnobDeclared, declared, listed


def meant(run_dir: Path | None, word: str, arguments: list[str]) -> Command:
    """The command of a word and its arguments; the name of a knob is a word, too: ``dropout 0.3``.

    ``run_dir`` is None for a run elsewhere: which knobs it has is then the run's to say.
    Raises UserError as ``understood``, with the run's knobs where they are what was looked for.
    """
    if run_dir is None:
        return (
            understood("set-knob", [word, *arguments])
            if _looks_a_knob(word, arguments)
            else understood(word, arguments)
        )
    if word in VERBS and not (word == "set-knob" and len(arguments) != 2):
        return understood(word, arguments)
    knobs = knobs_of(run_dir)
    if word in knobs:
        return understood("set-knob", [word, *arguments])
    try:
        return understood(word, arguments)
    except UserError as error:
        raise UserError(f"{error}; {listed(knobs)}" if knobs or word in VERBS else str(error)) from None


def _looks_a_knob(word: str, arguments: list[str]) -> bool:
    return word not in VERBS and len(arguments) == 1 and not word.startswith("-")


def knobs_of(run_dir: Path) -> dict[str, KnobDeclared]:
    """What the run has declared; empty where there is no run, which is another's to say. Raises JournalError."""
    from trainer_core.telemetry.journal import JournalReader, NoJournal

    try:
        with closing(JournalReader(run_dir)) as reader:
            return declared(row.record for row in reader.events("knob"))
    except NoJournal:
        return {}
