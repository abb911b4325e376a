import numpy as np
import pytest

from cifar_utils.backend import keras
from cifar_utils.training import make_optimizer


def steps(optimizer, gradients, start=1.0):
    """Where a variable that starts at 1 goes."""
    variable = keras.Variable([start], name="kernel")
    optimizer.build([variable])
    path = []
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor([gradient])], [variable])
        path.append(float(keras.ops.convert_to_numpy(variable)[0]))
    return path


def test_sgd_is_with_momentum():
    expected, velocity, weight = [], 0.0, 1.0
    for gradient in (0.5, -1.0, 2.0):
        velocity = 0.9 * velocity - 0.1 * gradient
        weight += velocity
        expected.append(weight)
    np.testing.assert_allclose(steps(make_optimizer("sgd", 0.1), (0.5, -1, 2)), expected, 1e-5)
    plain = steps(make_optimizer("sgd(momentum=0.0)", 0.1), (0.5, -1, 2))
    np.testing.assert_allclose(plain, [0.95, 1.05, 0.85], 1e-5)
    ahead = steps(make_optimizer("sgd(momentum=0.5,nesterov=True)", 0.1), (1, 0))
    np.testing.assert_allclose(ahead, [1 - 0.15, 1 - 0.15 - 0.025], 1e-5)


def test_adam_without_averages_steps_by_the_rate():
    path = steps(make_optimizer("adam(beta_1=0.0,beta_2=0.0)", 0.1), (0.5, -1, 2))
    np.testing.assert_allclose(path, [0.9, 1.0, 0.9], 1e-4)
    long = steps(make_optimizer("adam(0.5)", 0.1), (1, 0))
    assert long[1] < long[0] < 1  # the mean keeps half of the first gradient


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_weight_decay_takes_a_share_of_kernels_and_leaves_the_rest(name):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(inputs))
    x = keras.layers.RMSNormalization()(keras.layers.PReLU()(x))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    for weight in model.trainable_weights:
        weight.assign(keras.ops.ones_like(weight))
    optimizer = make_optimizer(name, 0.1, weight_decay=0.5, model=model)
    optimizer.build(model.trainable_weights)
    zeros = [keras.ops.zeros_like(weight) for weight in model.trainable_weights]
    optimizer.apply(zeros, model.trainable_weights)
    left = {"kernel": 1 - 0.1 * 0.5, "bias": 1, "gamma": 1, "beta": 1, "scale": 1, "alpha": 1}
    assert {weight.name for weight in model.trainable_weights} == left.keys()
    for weight in model.trainable_weights:
        values = keras.ops.convert_to_numpy(weight)
        np.testing.assert_allclose(values, left[weight.name], rtol=1e-6)
