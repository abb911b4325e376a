"""What is asked of a network before it is trained, and leaves it as it was."""

import numpy as np
import pandas as pd
import pytest

from cifar_utils.backend import keras
from cifar_utils.data import Split
from cifar_utils.plots import plot_gradient_norms
from cifar_utils.training import gradient_norms


def state(model):
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def same(a, b):
    return len(a) == len(b) and all(map(np.array_equal, a, b))


@pytest.fixture(scope="module")
def model(build):
    return build(augmentation="alternating_flip, crop(2)")


def linear(classes=3):
    """Logits that are the images times a kernel: its gradient is known."""
    inputs = keras.Input((4,))
    dense = keras.layers.Dense(classes, kernel_initializer="zeros", name="only")
    return keras.Model(inputs, dense(inputs))


def sequential():
    """The same network as a Sequential that was never called."""
    return keras.Sequential([keras.Input((4,)), *linear().layers[1:]])


@pytest.mark.parametrize("make", [linear, sequential])
def test_a_gradient_s_norm_is_the_one_counted_by_hand(make):
    images = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    labels = np.arange(6) % 3
    table = gradient_norms(make(), Split(images, labels), batch_size=6)
    # Of the mean cross-entropy at equal probabilities.
    gradient = images.T @ (1 / 3 - np.eye(3)[labels]) / 6
    assert table.loc["only", "norm"] == pytest.approx(np.linalg.norm(gradient), rel=1e-4)
    assert table.loc["only", "shape"] == "4×3"
    assert table.loc["only", "weights"] == 12


def test_a_batch_has_an_image_and_a_seed_is_no_less_than_0(model, digits, refused):
    for wrong, words in ({"batch_size": 0}, "batch_size is 0"), ({"seed": -1}, "seed is -1"):
        with refused(words):
            gradient_norms(model, digits.train, **wrong)


def test_norms_are_of_each_kernel_from_the_input_on_and_leave_the_model_as_it_was(model, digits):
    before = state(model)
    table = gradient_norms(model, digits.train, batch_size=50)
    assert same(state(model), before)
    assert [shape.count("×") for shape in table["shape"]] == [3, 1], "a convolution, then dense"
    assert (table["norm"] > 0).all()
    assert table.equals(gradient_norms(model, digits.train, batch_size=50))
    assert not table.equals(gradient_norms(model, digits.train, batch_size=50, seed=1))


def test_gradients_that_are_not_finite_are_told():
    images = np.full((6, 4), 1e38, np.float32)
    table = gradient_norms(linear(), Split(images, np.zeros(6, int)), batch_size=6)
    assert not np.isfinite(table.loc["only", "norm"])
    tables = {"none": table, "some": pd.DataFrame({"norm": [np.nan, 0.0, 0.5]})}
    for shown, lost in (tables, 2), ({"none": table}, 1):
        figure = plot_gradient_norms(shown)
        assert figure.png().startswith(b"\x89PNG")
        assert f"{lost} of the gradients are not finite" in figure.caption
        assert "none: not finite at the first of 1" in figure.alt


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
    assert "after training" in plot_gradient_norms(tables, "after training").caption
