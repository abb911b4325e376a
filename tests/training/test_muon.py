import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar_utils.backend import dtype_policy, keras
from cifar_utils.training import make_optimizer
from cifar_utils.training.muon import Muon, orthogonalize


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99), st.floats(1e-3, 1e3))
@settings(max_examples=25)
def test_singular_values_come_near_one_and_vectors_stay(rows, columns, seed, scale):
    random = np.random.default_rng(seed)
    size = min(rows, columns)
    u, v = (np.linalg.qr(random.normal(size=(n, size)))[0] for n in (rows, columns))
    values = random.uniform(0.3, 1, size)
    matrix = (scale * (u * values) @ v.T).astype(np.float32)
    found = to_numpy(orthogonalize(keras.ops.convert_to_tensor(matrix), steps=5))
    between = u.T @ found @ v
    assert 0.5 < np.diag(between).min() <= np.diag(between).max() < 1.35
    np.testing.assert_allclose(between, np.diag(np.diag(between)), atol=1e-3)


def noise(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def model_of(layer, *shape):
    """A model of one layer, for images of this shape."""
    images = keras.Input(shape)
    return keras.Model(images, layer(images), dtype=layer.dtype_policy)


@pytest.mark.parametrize(("precision", "exact"), [("float32", True), ("mixed_bfloat16", False)])
def test_filters_get_their_norm_and_an_orthogonal_step_as_exact_as_the_run(precision, exact):
    kernel, gradient = keras.Variable(noise(0, 3, 3, 2, 4)), noise(1, 3, 3, 2, 4)
    with dtype_policy(precision):
        model = model_of(keras.layers.Conv2D(4, 3), 6, 6, 2)
        optimizer = make_optimizer("muon", 0.1, model=model)
    scaled = to_numpy(kernel) * np.sqrt(4) / np.linalg.norm(to_numpy(kernel))
    optimizer.build([kernel])
    optimizer.apply([keras.ops.convert_to_tensor(gradient)], [kernel])
    # The first step is along the gradient itself, whatever the momentum; bfloat16 has two digits.
    turn = (scaled - to_numpy(kernel)).reshape(18, 4) / 0.1
    expected = to_numpy(orthogonalize(keras.ops.convert_to_tensor(gradient.reshape(18, 4))))
    np.testing.assert_allclose(turn, expected, atol=0.05)
    assert np.corrcoef(turn.ravel(), expected.ravel())[0, 1] > 0.999
    assert np.allclose(turn, expected, atol=1e-5) == exact


class Wrapped(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.inner = keras.layers.DepthwiseConv2D(3)
        self.unused = keras.layers.DepthwiseConv2D(3)

    def call(self, x):
        return self.inner(x)


@pytest.mark.parametrize(
    ("layer", "axes"),
    [
        (Wrapped(), (0, 1)),
        (keras.layers.DepthwiseConv2D(3, depth_multiplier=2, name="any"), (0, 1)),
        (keras.layers.SeparableConv2D(4, 3), (0, 1)),
        (keras.layers.Conv2D(1, 3), (0, 1, 2)),  # one filter over all channels
    ],
)
def test_a_filter_keeps_its_norm_and_turns_by_the_rate(layer, axes):
    model = model_of(layer, 6, 6, 5)
    optimizer = make_optimizer("muon(steps=0)", 0.1, model=model)
    optimizer.build(model.trainable_weights)
    kernel, *rest = model.trainable_weights
    before, gradient = to_numpy(kernel), noise(1, *kernel.shape)
    others = [keras.ops.zeros(weight.shape) for weight in rest]
    optimizer.apply([keras.ops.convert_to_tensor(gradient), *others], model.trainable_weights)
    scaled, along = (x / np.sqrt((x**2).sum(axis=axes, keepdims=True)) for x in (before, gradient))
    np.testing.assert_allclose(to_numpy(kernel), scaled - 0.1 * along, rtol=1e-3, atol=1e-5)


def test_the_rest_follows_sgd_at_rates_of_its_own():
    weights = {"dense": (5, 3), "of_rows": (3, 5, 2), "bias": (3,)}
    factors = {"dense": 2.8, "of_rows": 2.8, "bias": 0.22}
    optimizer = make_optimizer("muon", 0.1)
    variables = [keras.Variable(np.ones(shape), name=name) for name, shape in weights.items()]
    optimizer.build(variables)
    velocity, expected = 0.0, dict.fromkeys(weights, 1.0)
    for gradient in (0.5, -1.0):
        velocity = 0.85 * velocity + gradient
        for name in weights:
            expected[name] -= 0.1 * factors[name] * (gradient + 0.85 * velocity)
        gradients = [keras.ops.full(v.shape, gradient) for v in variables]
        optimizer.apply(gradients, variables)
    for variable in variables:
        np.testing.assert_allclose(to_numpy(variable), expected[variable.name], rtol=1e-5)


def test_it_is_made_again_from_its_configuration():
    made = make_optimizer("muon(steps=2)", 0.05)
    assert Muon.from_config(made.get_config()).get_config() == made.get_config()
