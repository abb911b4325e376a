import itertools

import numpy as np
import pytest

from cifar_utils.backend import keras
from cifar_utils.data import load_dataset
from cifar_utils.models import build_model, summarize
from cifar_utils.models.graph import at_once


def conv(positions, *filters, size=3):
    """Multiply-adds of convolutions in a row, each giving values at as many positions."""
    return positions * size**2 * sum(a * b for a, b in itertools.pairwise(filters))


def test_operations_of_a_tiny_model_by_hand():
    model = keras.Sequential(
        [
            keras.Input((5, 5, 2)),
            keras.layers.Conv2D(3, 3, padding="valid"),  # 3×3 positions × 3 filters × 18 products
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(4),  # 27 × 4
        ],
        name="tiny",
    )
    facts = summarize(model)
    assert facts.flops == 2 * (9 * 3 * 18 + 27 * 4)
    assert (facts.name, facts.parameters, facts.trainable_parameters) == ("tiny", 181, 175)
    assert list(facts.layers["operations"]) == [972, 0, 0, 216]
    assert facts.layers["parameters"].sum() == 181


def test_operations_of_resnet20_by_hand(built):
    multiply_adds = (
        conv(32 * 32, 3, *[16] * 7)
        + conv(16 * 16, 16, *[32] * 6)
        + conv(16 * 16, 16, 32, size=1)
        + conv(8 * 8, 32, *[64] * 6)
        + conv(8 * 8, 32, 64, size=1)
        + 64 * 10
    )
    assert summarize(built("resnet20")).flops == 2 * multiply_adds


def test_a_constant_beside_a_tensor_is_no_input_of_the_model():
    def scaled(x, classes):
        x = keras.ops.multiply(np.array([1.0, 2.0, 3.0], "float32"), x)
        return keras.layers.Dense(classes)(keras.layers.Flatten()(x))

    assert summarize(build_model(scaled, load_dataset("digits"))).parameters > 0


def test_layers_of_several_outputs_and_of_named_inputs_have_a_row():
    class Sum(keras.layers.Layer):
        def call(self, inputs):
            return inputs["a"] + inputs["b"]

    images = keras.Input((5, 4))
    states, last, _ = keras.layers.LSTM(3, return_state=True, return_sequences=True)(images)
    both = Sum()({"a": keras.layers.Flatten()(states), "b": keras.layers.Dense(15)(last)})
    table = summarize(keras.Model(images, both)).layers.set_index("kind")
    assert table.loc["LSTM", "output shape"] == "5 × 3"
    assert table.loc["Sum", "output shape"] == "15"


def test_a_model_within_a_model_counts():
    images = keras.Input((5, 5, 2))
    base = keras.Sequential([keras.layers.Conv2D(3, 3), keras.layers.BatchNormalization()])
    features = keras.layers.Flatten()(base(images))
    facts = summarize(keras.Model(images, keras.layers.Dense(4)(features)))
    assert facts.parameters == facts.layers["parameters"].sum() == 181
    assert facts.flops == 2 * (conv(9, 2, 3) + 27 * 4)


def test_a_model_with_a_layer_of_unknown_cost_has_no_count():
    x = images = keras.Input((8, 8, 2))
    x = keras.layers.Conv2D(3, 3)(x)
    x = keras.layers.Conv2DTranspose(3, 3)(x)
    x = keras.layers.MultiHeadAttention(1, 2)(x, x)
    facts = summarize(keras.Model(images, x))
    assert facts.flops is None
    assert "of Conv2DTranspose and MultiHeadAttention are not counted." in repr(facts)
    assert list(facts.layers["operations"])[1] == 2 * conv(36, 2, 3)


@pytest.mark.parametrize("kind", ["sequential", "functional"])
def test_a_model_for_images_of_any_size_counts_by_the_size_of_its_use(kind):
    images, any_size = keras.Input((5, 5, 2)), keras.Input((None, None, 2))
    layer = keras.layers.Conv2D(3, 3)
    base = keras.Sequential([any_size, layer])
    if kind == "functional":
        base = keras.Model(any_size, layer(any_size))
    facts = summarize(keras.Model(images, keras.layers.GlobalAveragePooling2D()(base(images))))
    assert (facts.parameters, facts.flops) == (57, 2 * conv(9, 2, 3))


def test_a_summary_says_it_in_words_and_folds_the_layers(built):
    facts = summarize(built("cifarnet"))
    assert "2,444,672 parameters, 2,441,728 of them trained" in str(facts)
    assert repr(facts) == str(facts)
    page = facts._repr_html_()
    assert str(facts) in page
    assert page.count("<tr") == 1 + len(built("cifarnet").layers)
    assert page.index("<details>") < page.index("<table") < page.index("</details>")


@pytest.mark.parametrize(("side", "most"), [(32, 500), (64, 500), (224, 40), (5000, 1)])
def test_a_model_gets_fewer_large_images_at_once(side, most):
    model = keras.Sequential([keras.layers.Flatten()])
    images = np.broadcast_to(np.uint8(0), (2000, side, side, 3))
    assert at_once(model, images) == at_once(model, images[:1]) == most
    resized = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Resizing(side, side)])
    assert at_once(keras.Sequential([resized]), images[:, :8, :8]) == most
