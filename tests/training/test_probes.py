"""What is asked of a network before it is trained, and leaves it as it was."""

import numpy as np
import pandas as pd
import pytest

from cifar_utils.backend import keras
from cifar_utils.data import Split
from cifar_utils.plots import plot_gradient_norms, plot_learning_rate_range
from cifar_utils.training import LearningRateRange, gradient_norms, learning_rate_range
from cifar_utils.training.probes import smooth


def state(model):
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def same(a, b):
    return len(a) == len(b) and all(map(np.array_equal, a, b))


@pytest.fixture(scope="module")
def model(build):
    return build(augmentation="alternating_flip, crop(2)")


@pytest.fixture(scope="module")
def found(model, digits):
    return learning_rate_range(
        model, digits.train, batch_size=30, lowest=1e-3, highest=1e4, steps=45
    )


def test_the_rate_rises_until_the_loss_blows_up(found):
    assert found.blew_up
    assert len(found.rates) == len(found.losses) < 45
    assert found.rates[0] == pytest.approx(1e-3)
    np.testing.assert_allclose(found.rates[1:] / found.rates[:-1], 10 ** (7 / 44))
    assert found.losses[0] == pytest.approx(np.log(10), abs=1.5)
    assert found.smoothed.min() < found.smoothed[0]
    assert found.suggested == found.rates[found.smoothed.argmin()] / 10
    assert f"suggested peak learning rate {found.suggested:.2g}, a tenth of" in repr(found)
    assert "where the loss blew up" in found._repr_html_()


def test_a_range_test_is_a_matter_of_its_seed_and_leaves_the_model_as_it_was(digits, build):
    model = build(augmentation="alternating_flip, crop(2)")
    model.compile("adam", "mse")
    before, optimizer = state(model), model.optimizer
    options = {"batch_size": 30, "lowest": 1e-3, "highest": 1.0, "steps": 4}
    runs = [
        learning_rate_range(model, digits.train, seed=seed, **options).losses for seed in (1, 1, 2)
    ]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])
    assert same(state(model), before)
    assert model.optimizer is optimizer


def test_smoothed_losses_start_without_bias():
    np.testing.assert_allclose(smooth(np.array([2.0, 2.0, 2.0])), 2.0)
    np.testing.assert_allclose(smooth(np.array([1.0, 2.0])), [1, (0.09 + 0.2) / 0.19])


def test_a_suggestion_that_means_nothing_says_so():
    rates = np.geomspace(1e-3, 1, 4)
    assert LearningRateRange(rates, np.array([2.0, 1.0, 1.0, 30.0]), True).caution == ""
    rising = LearningRateRange(rates, np.array([1.0, 2.0, 3.0, 4.0]), False)
    assert "take a lower lowest rate" in repr(rising)
    falling = LearningRateRange(rates, np.array([4.0, 3.0, 2.0, 1.0]), False)
    assert "take a higher highest" in plot_learning_rate_range(falling).caption


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lowest": 0.0}, "lowest is 0.0; it must be above 0"),
        ({"lowest": 20.0}, "highest is 10.0; it must be above 20.0"),
        ({"steps": 1}, "steps is 1; it must be at least 2"),
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"batch_size": 1000}, "batch_size is 1000, and there are 270 images"),
        ({"optimizer": "sdg"}, "did you mean 'sgd'?"),
    ],
)
def test_bad_ranges_are_one_line(model, digits, refused, change, words):
    with refused(words):
        learning_rate_range(model, digits.train, **{"batch_size": 30} | change)


def test_the_range_is_drawn_with_its_suggestion(found):
    figure = plot_learning_rate_range(found)
    assert figure.png().startswith(b"\x89PNG")
    assert figure.figure.axes[0].get_xscale() == "log"
    assert figure.figure.axes[0].get_xlabel() == "learning rate"
    assert f"Suggested is {found.suggested:.2g}, a tenth of" in figure.caption
    assert "where it blew up" in figure.alt
    assert figure.alt.endswith(".")


def linear(classes=3):
    """Logits that are the images times a kernel: its gradient is known."""
    inputs = keras.Input((4,))
    dense = keras.layers.Dense(classes, kernel_initializer="zeros", name="only")
    return keras.Model(inputs, dense(inputs))


def test_a_gradient_s_norm_is_the_one_counted_by_hand():
    images = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    labels = np.arange(6) % 3
    table = gradient_norms(linear(), Split(images, labels), batch_size=6)
    # Of the mean cross-entropy at equal probabilities.
    gradient = images.T @ (1 / 3 - np.eye(3)[labels]) / 6
    assert table.loc["only", "norm"] == pytest.approx(np.linalg.norm(gradient), rel=1e-4)
    assert table.loc["only", "shape"] == "4×3"
    assert table.loc["only", "weights"] == 12


def test_norms_are_of_each_kernel_from_the_input_on_and_leave_the_model_as_it_was(model, digits):
    before = state(model)
    table = gradient_norms(model, digits.train, batch_size=50)
    assert same(state(model), before)
    assert [shape.count("×") for shape in table["shape"]] == [3, 1], "a convolution, then dense"
    assert (table["norm"] > 0).all()
    assert table.equals(gradient_norms(model, digits.train, batch_size=50))
    assert not table.equals(gradient_norms(model, digits.train, batch_size=50, seed=1))


def test_gradients_that_are_no_numbers_are_named():
    images = np.full((6, 4), 1e38, np.float32)
    with pytest.raises(FloatingPointError, match="gradient of only is not finite"):
        gradient_norms(linear(), Split(images, np.zeros(6, int)), batch_size=6)


def test_networks_are_compared_by_their_gradients():
    tables = {
        "shallow": pd.DataFrame({"norm": [0.5, 0.25]}),
        "deep": pd.DataFrame({"norm": [1e-6, 0.0, 0.1]}),
    }
    figure = plot_gradient_norms(tables)
    assert figure.png().startswith(b"\x89PNG")
    axes = figure.figure.axes[0]
    assert axes.get_yscale() == "log"
    assert [len(line.get_xdata()) for line in axes.lines] == [2, 3]
    assert "shallow: 0.5 at the first of 2, 0.25 at the last" in figure.alt
    assert "deep: 1e-06 at the first of 3" in figure.alt
    assert "1 of the gradients are zero" in figure.caption
    assert "in a step before any training" in figure.caption
    assert "in a step after training" in plot_gradient_norms(tables, "after training").caption
