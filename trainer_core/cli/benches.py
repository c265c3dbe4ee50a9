"""``hybrid bench``: measures on this machine. Knows which module measures what."""

from typing import Annotated

import typer

from trainer_core.cli.output import need_extra

AsJson = Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")]


def add_to(app: typer.Typer) -> None:
    """Register ``bench`` and its commands."""
    bench = typer.Typer(no_args_is_help=True, help="Measure on this machine; ratios come from one run.")
    bench.command("telemetry")(telemetry)
    bench.command("engine")(engine)
    app.add_typer(bench, name="bench", rich_help_panel="Measure")


def telemetry(as_json: AsJson = False) -> None:
    """What a record costs the training thread, how long it takes to a client, how long a command takes to act."""
    from trainer_core import bench_telemetry

    bench_telemetry.run(json=as_json)


def engine(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer steps: minutes become seconds.")] = False,
    as_json: AsJson = False,
) -> None:
    """What a FULL step costs beside a plain PyTorch loop."""
    need_extra("train", "torch", "numpy", "sklearn", "safetensors")
    from trainer_core import bench_engine

    bench_engine.run(quick=quick, json=as_json)
