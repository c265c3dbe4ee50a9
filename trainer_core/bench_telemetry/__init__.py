"""What telemetry costs and how fast it is, measured here and now, ratios within one run. Knows no recorded figure."""

from trainer_core.bench_telemetry.measure import run

__all__ = ["run"]
