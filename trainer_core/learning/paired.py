"""The paired test: two sets of weights judged on the same samples. Knows no model and no phase.

    g_i = before_i - after_i        gain = mean(g)        SE = std(g) / sqrt(n)        z = gain / SE, clipped to +-6

Batch noise is common to both sides and cancels; comparing one batch's loss with a running mean would only measure it.
A sample, or a piece of a batch, whose loss is NaN with both weights has no label: it compares nothing and is left out.
"""

import math

import msgspec
import torch
from torch import Tensor

Z_LIMIT = 6.0


class Paired(msgspec.Struct, frozen=True):
    """Verdict of one paired test; losses are means over the samples."""

    before: float
    after: float
    gain: float
    standard_error: float
    z: float

    @property
    def better(self) -> bool:
        """Whether the second set of weights had the lower loss."""
        return self.gain > 0

    @property
    def void(self) -> bool:
        """Whether there was nothing to compare: no sample has a loss with either weights."""
        return math.isnan(self.before) and math.isnan(self.after)


_VOID = Paired(math.nan, math.nan, 0.0, math.inf, 0.0)


def paired_test(before_N: Tensor, after_N: Tensor) -> Paired:
    """Compare per-sample losses of shape (N,). A non-finite ``after`` is as bad as can be: z = -6.

    One sample has no standard error: z is then the sign of the gain, the evidence of a single coin. Where none has a
    loss the test is ``void``.
    """
    gains_N = before_N - after_N
    n = gains_N.numel()
    spread = gains_N.std() if n > 1 else torch.zeros((), device=gains_N.device)
    # One intended synchronisation: the decision needs the numbers now.
    before, after, gain, std = torch.stack([before_N.mean(), after_N.mean(), gains_N.mean(), spread]).tolist()
    if math.isnan(before) and math.isnan(after):
        known_N = ~(before_N.isnan() & after_N.isnan())
        known = int(known_N.sum())
        if known < n:
            return paired_test(before_N[known_N], after_N[known_N]) if known else _VOID
    return _verdict(n, before, after, gain, std)


def moments(before_N: Tensor, after_N: Tensor) -> Tensor:
    """What ``pooled_test`` needs of one part of the samples, shape (5,), float64: their number, mean before, mean
    after, mean gain, and the sum of squared deviations from it."""
    known_N = ~(before_N.isnan() & after_N.isnan())
    before_N, after_N = before_N[known_N].double(), after_N[known_N].double()
    if not before_N.numel():
        return torch.zeros(5, dtype=torch.float64, device=before_N.device)
    gains_N = before_N - after_N
    gain = gains_N.mean()
    n = torch.tensor(float(gains_N.numel()), dtype=torch.float64, device=gains_N.device)
    return torch.stack([n, before_N.mean(), after_N.mean(), gain, (gains_N - gain).square().sum()])


def pooled_test(parts: list[list[float]]) -> Paired:
    """The paired test over samples that are spread over several ``moments`` (Chan, Golub and LeVeque 1979)."""
    n = sum(part[0] for part in parts)
    if not n:
        return _VOID
    before, after, gain = (sum(part[0] * part[i] for part in parts) / n for i in (1, 2, 3))
    squares = sum(part[4] + part[0] * (part[3] - gain) ** 2 for part in parts)
    return _verdict(int(n), before, after, gain, math.sqrt(squares / (n - 1)) if n > 1 else 0.0)


def _verdict(n: int, before: float, after: float, gain: float, std: float) -> Paired:
    error = std / math.sqrt(n)
    if not math.isfinite(after):
        return Paired(before, after, -math.inf, math.inf, -Z_LIMIT)
    if not math.isfinite(before):
        return Paired(before, after, math.inf, math.inf, Z_LIMIT)
    if n == 1:
        z = math.copysign(1.0, gain) if gain else 0.0
    else:
        z = gain / max(error, 1e-12)
    return Paired(before, after, gain, error, max(-Z_LIMIT, min(Z_LIMIT, z)))


def pooled_gain(first: Paired, second: Paired) -> float:
    """Mean gain of two independent tests, each weighted by its inverse variance; -inf when one is not finite."""
    return pooled(first, second)[0]


def pooled(first: Paired, second: Paired) -> tuple[float, float]:
    """``pooled_gain``, and by how many of its standard errors it is above 0."""
    gains = [(t.gain, max(t.standard_error, 1e-12)) for t in (first, second)]
    if not all(math.isfinite(gain) and math.isfinite(error) for gain, error in gains):
        return -math.inf, -Z_LIMIT
    weights = [error**-2 for _, error in gains]
    gain = sum(w * gain for w, (gain, _) in zip(weights, gains, strict=True)) / sum(weights)
    return gain, max(-Z_LIMIT, min(Z_LIMIT, gain * math.sqrt(sum(weights))))
