import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cifar_utils.backend import keras
from cifar_utils.choices import parse_call

RATES = st.floats(1e-6, 10)
STEPS, EPOCHS = st.integers(1, 500), st.integers(1, 200)
FACTORS = st.floats(0.01, 0.99)


def rate(text, peak, steps, epochs, at):
    """The learning rate that a schedule gives at a step."""
    schedule = parse_call("schedule", text)(peak, steps, epochs)
    if callable(schedule):
        return float(keras.ops.convert_to_numpy(schedule(at)))
    return schedule


def close(value, expected, peak):
    np.testing.assert_allclose(value, expected, rtol=2e-4, atol=1e-5 * peak)


@given(RATES, STEPS, EPOCHS, FACTORS, st.integers(1, 30), st.integers(0, 5000))
@settings(max_examples=30)
def test_step_and_exponential_cut_the_rate_every_so_many_epochs(
    peak, steps, epochs, factor, every, at
):
    value = rate(f"step(every={every}, factor={factor})", peak, steps, epochs, at)
    close(value, peak * factor ** (at // steps // every), peak)
    value = rate(f"exponential({factor})", peak, steps, epochs, at)
    close(value, peak * factor ** (at // steps), peak)
    assert rate("constant", peak, steps, epochs, at) == peak


@given(RATES, STEPS, EPOCHS, st.floats(0, 0.9), st.floats(0, 1))
@example(1.0, 17, 15, 1 / 3, 0.5)  # 1/3 × 17 × 15 is below 85 if it is rounded twice
@settings(max_examples=60)
def test_cosine_rises_in_a_line_and_falls_to_zero(peak, steps, epochs, warmup, share):
    total = steps * epochs
    rising, at = math.floor(warmup * total), round(share * total)
    if at < rising:
        expected = peak * at / rising
    else:
        expected = peak * (1 + math.cos(math.pi * (at - rising) / (total - rising))) / 2
    close(rate(f"cosine({warmup})", peak, steps, epochs, at), expected, peak)


@given(RATES, STEPS, st.integers(2, 100), st.floats(0, 0.9), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=40)
def test_linear_rises_and_falls_in_lines(peak, steps, epochs, warmup, final, share):
    total = steps * epochs
    rising, at = math.floor(warmup * total), round(share * total)
    expected = np.interp(at, [0, rising, total], [0 if rising else peak, peak, peak * final])
    close(rate(f"linear({warmup}, {final})", peak, steps, epochs, at), expected, peak)


@given(RATES, STEPS, st.integers(2, 100), st.floats(0.05, 0.45), st.floats(0.01, 0.9))
@settings(max_examples=40)
def test_one_cycle_rises_falls_and_dies_out(peak, steps, epochs, rise, low):
    total = steps * epochs

    def at(share):
        return rate(f"one_cycle({rise}, {low})", peak, steps, epochs, share * total)

    for share, expected in ((0, low), (rise, 1), (2 * rise, low), (1, low / 100)):
        close(at(share), peak * expected, peak)


@given(RATES, STEPS, EPOCHS, st.integers(1, 20), st.floats(0, 0.9), st.floats(0, 1))
@settings(max_examples=40)
def test_triangular_repeats_itself_between_its_ends(peak, steps, epochs, every, low, share):
    at = share * steps * epochs
    phase = at % (every * steps) / (every * steps)
    expected = peak * (low + (1 - low) * (1 - abs(2 * phase - 1)))
    value = rate(f"triangular({every}, {low})", peak, steps, epochs, at)
    np.testing.assert_allclose(value, expected, rtol=1e-3, atol=1e-3 * peak)


def rates_on(text, losses, seen=0):
    """The rate that each epoch is trained at, by its validation loss; ``seen`` of them replayed."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    plateau = rate(text, 0.1, 10, len(losses), 0)
    plateau.set_model(model)
    plateau.rows = [{"epoch": e + 1, "val_loss": losses[e]} for e in range(seen)]
    plateau.on_train_begin()
    rates = []
    for epoch in range(seen, len(losses)):
        rates.append(float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)))
        plateau.on_epoch_end(epoch, {"val_loss": losses[epoch]})
    return rates


def test_plateau_cuts_the_rate_after_epochs_without_a_better_loss():
    losses = [1.0, 0.5, 0.6, 0.5, 0.4, 0.4, 0.4, 0.4, 0.4]
    found = rates_on("plateau(factor=0.5, patience=2)", losses)
    expected = [0.1] * 4 + [0.05] * 3 + [0.025] * 2
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(rates_on("plateau", [1.0] * 12), [0.1] * 11 + [0.01], rtol=1e-6)


@given(
    st.lists(st.sampled_from([0.3, 0.30005, 0.4, 0.5]), min_size=2, max_size=12),
    st.integers(1, 3),
    st.data(),
)
@settings(max_examples=10)
def test_plateau_goes_on_from_any_epoch_as_if_it_had_seen_all(losses, patience, data):
    text = f"plateau(0.3, {patience})"
    seen = data.draw(st.integers(1, len(losses) - 1))
    assert rates_on(text, losses, seen) == rates_on(text, losses)[seen:]


def test_defaults_are_those_of_the_reports():
    assert rate("exponential", 1e-3, 10, 100, 10) == pytest.approx(1e-3 * 0.99)
    assert rate("step", 0.1, 10, 100, 99) == pytest.approx(0.1)
    assert rate("step", 0.1, 10, 100, 100) == pytest.approx(0.01)
    assert rate("cosine", 0.1, 10, 10, 0) == pytest.approx(0.1)
    assert rate("cosine", 0.1, 10, 10, 100) == pytest.approx(0, abs=1e-8)
