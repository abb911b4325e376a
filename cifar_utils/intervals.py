"""Intervals: Wilson's of images, Student's of seeds, Tukey's of the best of several."""

import math
from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from statistics import mean, stdev

import numpy as np
from scipy.stats import binomtest, halfnorm, studentized_range, t

NO_DEVIATION = 1e-9  # of fractions; less is rounding


@cache
def wilson_interval(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of a fraction ``hits / n`` (Wilson's score interval, 1927), as fractions."""
    interval = binomtest(int(hits), int(n)).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def student_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95% interval of a mean, Student's; None for fewer than two values or equal ones."""
    if len(values) < 2 or (deviation := stdev(values)) <= NO_DEVIATION:
        return None
    half = t.ppf(0.975, len(values) - 1) * deviation / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half


def paired_intervals(
    rows: Sequence[Mapping[Hashable, float]],
) -> list[tuple[float, float, float] | None]:
    """The mean difference of each later row from the first one, and the ends of its 95% interval.

    A row maps seeds to values; a pair has one seed. The standard deviation is that of what is left
    after the effects of rows and seeds, over all pairs (the analysis of a two-way table). It
    considers that all pairs share the first row's values. Of two rows it is the paired t-test. A
    row of fewer than two pairs has None, and so has each where all differences are the same.
    """
    first, *others = rows
    pairs = [{seed: row[seed] for seed in row if seed in first} for row in others]
    several = [row for row in pairs if len(row) > 1]
    paired = {seed: first[seed] for seed in first if any(seed in row for row in several)}
    deviation, freedom = _left_over([paired, *several])
    found = []
    for row in pairs:
        if len(row) < 2 or math.isnan(deviation):
            found.append(None)
            continue
        gain = mean(row[seed] - first[seed] for seed in row)
        half = t.ppf(0.975, freedom) * deviation * math.sqrt(2 / len(row))
        found.append((gain, gain - half, gain + half))
    return found


def tukey_half_width(rows: Sequence[Mapping[Hashable, float]], cases: int = 0) -> float:
    """Half the width of the 95% intervals of all differences between two rows' means, by Tukey.

    Each row maps the same seeds to values. The intervals of all pairs of ``cases``, which are the
    rows if not given, hold at once with a probability of 95%, so they allow for the choice of the
    best one. NaN where all differences are the same in each seed: then nothing is known of others.
    """
    deviation, freedom = _left_over(rows)
    if math.isnan(deviation):
        return math.nan
    studentized = studentized_range.ppf(0.95, cases or len(rows), freedom)
    return float(studentized) * deviation / math.sqrt(len(rows[0]))


def _left_over(rows: Sequence[Mapping[Hashable, float]]) -> tuple[float, int]:
    """Deviation and degrees of freedom of what neither rows nor columns explain; or NaN."""
    cells = [(row, *cell) for row, values in enumerate(rows) for cell in values.items()]
    columns = list(dict.fromkeys(column for _, column, _ in cells))
    effects = np.zeros((len(cells), len(rows) + len(columns)))
    for line, (row, column, _) in zip(effects, cells, strict=True):
        line[[row, len(rows) + columns.index(column)]] = 1
    values = np.array([value for *_, value in cells])
    fit, _, rank, _ = np.linalg.lstsq(effects, values)
    freedom = len(cells) - int(rank)
    left = float(np.linalg.norm(values - effects @ fit))
    return (left / math.sqrt(freedom) if left > NO_DEVIATION else math.nan), freedom


def tukey_level(cases: int) -> float:
    """The level of the interval of one difference at which those of all pairs hold at once in 95%.

    For differences of shares it is that of the studentized range (Agresti et al., Biometrics 64,
    1270-1275, 2008). Of two cases it is 0.95.
    """
    return float(halfnorm.cdf(studentized_range.ppf(0.95, cases, math.inf) / math.sqrt(2)))
