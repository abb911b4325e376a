import numpy as np
import pytest

from cifar_utils.backend import keras
from cifar_utils.training import make_optimizer


def test_options_reach_keras_and_sgd_is_with_momentum():
    assert make_optimizer("sgd", 0.1).momentum == 0.9
    sgd = make_optimizer("sgd(momentum=0.5,nesterov=True)", 0.1)
    assert (float(sgd.learning_rate), sgd.momentum, sgd.nesterov) == (pytest.approx(0.1), 0.5, True)
    adam = make_optimizer("adam(0.5, beta_2=0.9)", 0.1)
    assert (adam.beta_1, adam.beta_2) == (0.5, 0.9)


@pytest.mark.parametrize("name", ["sgd", "adam", "muon"])
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
        expected = left[weight.name]
        if name == "muon" and len(weight.shape) == 4:  # it sets the norm of filters
            expected = np.sqrt(4 / np.prod(weight.shape))
        np.testing.assert_allclose(keras.ops.convert_to_numpy(weight), expected, rtol=1e-5)
