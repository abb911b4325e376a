import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from cifar_utils.intervals import (
    paired_intervals,
    student_interval,
    tukey_half_width,
    tukey_level,
    wilson_interval,
)


def _differences_vary(pairs):
    return len({one - other for one, other in pairs}) > 1


HITS = st.integers(0, 1000)  # whole, so that differences are exact


@given(st.lists(st.tuples(HITS, HITS), min_size=2, max_size=6).filter(_differences_vary))
def test_of_two_rows_the_intervals_are_those_of_the_paired_t_test(pairs):
    ours, theirs = map(dict, map(enumerate, zip(*pairs, strict=True)))
    differences = [one - other for one, other in pairs]
    bounds = ttest_1samp(differences, 0).confidence_interval(0.95)
    ((middle, low, high),) = paired_intervals([theirs, ours | {"another": 5}])
    assert (middle, low, high) == pytest.approx((np.mean(differences), *bounds), abs=1e-6)
    assert tukey_half_width([ours, theirs]) == pytest.approx((high - low) / 2, rel=1e-3)


def test_more_rows_share_a_deviation():
    rows = np.array([[0.1, 0.2, 0.4], [0.3, 0.3, 0.4], [0.2, 0.3, 0.3]])
    residuals = rows - rows.mean(0) - rows.mean(1, keepdims=True) + rows.mean()
    deviation = math.sqrt((residuals**2).sum() / 4 / 3)  # of a mean, by 4 degrees of freedom
    first, *others = [dict(enumerate(row)) for row in rows]
    # The studentized range of three rows is 5.040, and of four 5.757; Student's t is 2.776.
    assert tukey_half_width([first, *others]) == pytest.approx(5.040 * deviation, rel=1e-3)
    assert tukey_half_width([first, *others], 4) == pytest.approx(5.757 * deviation, rel=1e-3)
    second, third = paired_intervals([first, *others])
    half = 2.776 * math.sqrt(2) * deviation
    assert second == pytest.approx((0.1, 0.1 - half, 0.1 + half), abs=1e-4)
    assert third[2] - third[1] == pytest.approx(2 * half, abs=1e-4)


def test_rows_without_two_pairs_have_no_interval_and_no_part_in_those_of_others():
    first, second, single = {0: 0.1, 1: 0.2, 2: 0.4}, {0: 0.3, 2: 0.4}, {1: 0.9, 7: 0.1, 8: 0.3}
    alone = paired_intervals([first, second])
    assert paired_intervals([first, single, second, {}]) == [None, *alone, None]
    assert paired_intervals([first]) == []


def test_seeds_that_do_not_differ_tell_no_interval():
    assert student_interval([0.1, 0.1]) is None
    assert student_interval([0.7]) is None
    assert student_interval([0.1 + 0.2, 0.3]) is None, "a difference by rounding alone"
    rows = {0: 0.1, 1: 0.2}, {0: 0.3, 1: 0.4}
    assert paired_intervals(rows) == [None]
    assert math.isnan(tukey_half_width(rows))


def test_wilson_interval_has_its_published_values():
    # Newcombe, Statistics in Medicine 17 (1998), table I.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


@pytest.mark.parametrize(("cases", "studentized"), [(2, 2.772), (3, 3.314), (10, 4.474)])
def test_intervals_of_shares_are_wider_the_more_cases_there_are_to_choose_from(cases, studentized):
    # Studentized ranges of infinitely many degrees of freedom, as statistical tables print them.
    half = NormalDist().inv_cdf((1 + tukey_level(cases)) / 2)
    assert half == pytest.approx(studentized / math.sqrt(2), abs=1e-3)
