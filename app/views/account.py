"""What a run's report says beside the document's expected performance, as rows of text. Pure: JSON in, rows out."""

from collections.abc import Mapping
from typing import Any

from app.views import words
from trainer_core.spec.document import EXPECTED, Expected

HEAD = ("figure", "this run", "how it is known", "the document expects")
Json = Mapping[str, Any]


def rows(report: Json, preset: str) -> list[dict[str, str]]:
    """The account of ``hybrid report --json`` beside what the document expects of ``preset``."""
    expects = next((e for e in EXPECTED if e.preset == preset), Expected(preset, "", "", ""))
    saved, compared = report["ledger"]["saved"], report["comparison"]
    basis = "" if saved is None else "measured on the baseline" if saved["basis"] == "measured" else "an estimate"
    gap = compared["at_equal_steps"] if compared is not None else None
    lines = [
        ("Speedup", "not measured" if saved is None else f"{saved['speedup']:.2f}x",
         f"{basis}: {saved['method']}" if saved is not None else "no full step was timed", expects.speedup),
        ("Loss gap", "not measured" if gap is None else f"{gap['gap']:+.1%}",
         "no baseline run (hybrid train TASK --plain makes one)" if compared is None
         else f"at equal steps, against {compared['baseline']}", expects.loss_gap),
        ("Backward reduction", _share(report["backward_reduction"]), "counted, over all attempts",
         expects.backward_reduction),
        ("Backward passes", f"{report['backward_passes']:,} of {report['steps']:,} steps", "counted", ""),
        ("Time in steps", words.duration(report["training_seconds"]), "measured", ""),
        ("Time saved", words.ABSENT if saved is None else f"{saved['net_seconds']:,.1f} s net", basis, ""),
        ("Predictions", "{kept:,} kept, {undone:,} undone".format(**report["predictions"]), "counted", ""),
        ("Final loss", words.number(_number(report["final_loss"]), 4), "measured, last step", ""),
        ("Validation loss", words.number(_number(report["validation_loss"]), 4), "measured, last validation", ""),
    ]  # fmt: skip
    return [dict(zip(HEAD, (*line[:3], line[3] or words.ABSENT), strict=True)) for line in lines]


def _share(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.0%}"


def _number(value: float | str | None) -> float | None:
    """JSON says NaN and infinities as texts."""
    return None if value is None else float(value)
