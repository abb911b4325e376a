import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar_utils.backend import keras
from cifar_utils.parameters import InputError, parse_call
from cifar_utils.training import SCHEDULES

RATES = st.floats(1e-6, 10)
STEPS, EPOCHS = st.integers(1, 500), st.integers(1, 200)
FACTORS = st.floats(0.01, 0.99)


def rate(text, peak, steps, epochs, at):
    """The learning rate that a schedule gives at a step."""
    schedule = parse_call("schedule", text, SCHEDULES, given=3)(peak, steps, epochs)
    if callable(schedule):
        return float(keras.ops.convert_to_numpy(schedule(at)))
    return schedule


def close(value, expected, peak):
    np.testing.assert_allclose(value, expected, rtol=2e-4, atol=1e-5 * peak)


@given(RATES, STEPS, EPOCHS, st.integers(0, 10_000))
@settings(deadline=None, max_examples=30)
def test_constant(peak, steps, epochs, at):
    assert rate("constant", peak, steps, epochs, at) == peak


@given(RATES, STEPS, EPOCHS, FACTORS, st.integers(1, 30), st.integers(0, 5000))
@settings(deadline=None, max_examples=30)
def test_step_cuts_the_rate_every_so_many_epochs(peak, steps, epochs, factor, every, at):
    value = rate(f"step(every={every}, factor={factor})", peak, steps, epochs, at)
    close(value, peak * factor ** (at // steps // every), peak)


@given(RATES, STEPS, EPOCHS, FACTORS, st.integers(0, 5000))
@settings(deadline=None, max_examples=30)
def test_exponential_cuts_it_after_every_epoch(peak, steps, epochs, factor, at):
    value = rate(f"exponential({factor})", peak, steps, epochs, at)
    close(value, peak * factor ** (at // steps), peak)


@given(RATES, STEPS, EPOCHS, st.floats(0, 0.9), st.floats(0, 1))
@settings(deadline=None, max_examples=60)
def test_cosine_rises_in_a_line_and_falls_to_zero(peak, steps, epochs, warmup, share):
    total = steps * epochs
    rising, at = math.floor(warmup * total), round(share * total)
    if at < rising:
        expected = peak * at / rising
    else:
        expected = peak * (1 + math.cos(math.pi * (at - rising) / (total - rising))) / 2
    close(rate(f"cosine({warmup})", peak, steps, epochs, at), expected, peak)


def test_defaults_are_those_of_the_reports():
    assert rate("exponential", 1e-3, 10, 100, 10) == pytest.approx(1e-3 * 0.99)
    assert rate("step", 0.1, 10, 100, 99) == pytest.approx(0.1)
    assert rate("step", 0.1, 10, 100, 100) == pytest.approx(0.01)
    assert rate("cosine", 0.1, 10, 10, 0) == pytest.approx(0.1)
    assert rate("cosine", 0.1, 10, 10, 100) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cosin", "did you mean 'cosine'?"),
        ("cosine(1)", "warmup is 1.0"),
        ("cosine(-0.1)", "warmup is -0.1"),
        ("cosine('long')", "takes a number"),
        ("step(every=0)", "every 0"),
        ("step(every=2.5)", "takes a whole number"),
        ("step(factor=1)", "factor 1.0"),
        ("exponential(0)", "factor 0.0"),
        ("exponential(every=2)", "unknown option"),
    ],
)
def test_bad_schedules_are_one_line(text, words):
    with pytest.raises(InputError) as error:
        rate(text, 0.1, 10, 10, 0)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
