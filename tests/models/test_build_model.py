import ast
import dataclasses
import functools
import inspect
import linecache
import tracemalloc

import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from cifar_utils.backend import keras
from cifar_utils.choices import REGISTRIES
from cifar_utils.data import Split
from cifar_utils.models import build_model, network_source
from cifar_utils.models.blocks import conv_bn_relu
from cifar_utils.models.build import normalization_layer
from cifar_utils.training import fit

LARGE = ("fan", "vgg19", "resnet18", "resnet50", "resnet56", "resnet110")


def same_weights(a, b):
    return all(map(np.array_equal, a.get_weights(), b.get_weights()))


@pytest.mark.parametrize("name", [name for name in REGISTRIES["architecture"] if name not in LARGE])
def test_raw_images_give_float32_logits(built, digits, name):
    model = built(name)
    assert model.name == name
    assert model.input.dtype == "uint8"
    assert model.input_shape == (None, 32, 32, 3)
    logits = to_numpy(model(digits.test.images[:4]))
    assert logits.shape == (4, 10)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    # Probabilities would be positive and add up to one.
    assert logits.min() < 0
    assert not np.allclose(logits.sum(1), 1, atol=0.05)


@pytest.mark.parametrize(
    ("name", "parameters", "trainable"),
    [
        ("fan", 87_316_426, 87_312_394),
        ("cifarnet", 2_444_672, 2_441_728),
        ("cifarnet(residual=False)", 2_444_672, 2_441_728),
        ("vgg19", 20_576_842, 20_565_834),
        ("preact", 1_574_218, 1_570_378),
        ("cifarnet_worst", 7_713_874, 7_712_118),
        ("resnet18", 11_183_562, 11_173_962),
        ("resnet20", 274_042, 272_474),
        ("resnet50", 23_573_962, 23_520_842),
        ("airbench", 1_973_944, 1_971_352),
        ("airbench96", 9_921_848, 9_915_416),
        pytest.param("resnet50v2", 23_585_290, 23_539_850, marks=pytest.mark.slow),
        pytest.param("resnet56", 860_026, 855_770, marks=pytest.mark.slow),
        pytest.param("resnet110", 1_739_002, 1_730_714, marks=pytest.mark.slow),
    ],
)
def test_parameters_are_as_many_as_reported(built, name, parameters, trainable):
    model = built(name)
    trained = sum(np.prod(weight.shape) for weight in model.trainable_weights)
    assert (model.count_params(), trained) == (parameters, trainable)


def test_mixed_precision_computes_in_bfloat16_and_gives_float32_logits(digits):
    model = build_model(tiny, digits, precision="mixed_bfloat16")
    assert {layer.compute_dtype for layer in model.layers if "conv" in layer.name} == {"bfloat16"}
    assert {weight.dtype for weight in model.trainable_weights} == {"float32"}
    logits = to_numpy(model(digits.test.images[:2]))
    assert logits.dtype == np.float32
    assert keras.config.dtype_policy().name == "float32"


def test_the_seed_gives_the_weights(digits):
    models = [build_model(tiny, digits, augmentation="crop, flip", seed=seed) for seed in (3, 3, 4)]
    assert same_weights(models[0], models[1])
    assert not same_weights(models[0], models[2])


def normalized(dataset, images, normalization="channels"):
    """Images as they enter the first convolution."""
    model = build_model(tiny, dataset, normalization=normalization, precision="float32")
    first = next(x for x in model.layers if isinstance(x, keras.layers.Conv2D))
    return to_numpy(keras.Model(model.input, first.input)(images))


@pytest.fixture
def coloured(digits):
    """Digits with other images to train on, whose channels differ in mean and deviation."""
    images = np.random.default_rng(0).integers(0, [40, 150, 256], digits.train.images.shape)
    return dataclasses.replace(digits, train=Split(images.astype(np.uint8), digits.train.labels))


@pytest.mark.parametrize(("normalization", "axes"), [("channels", (0, 1, 2)), ("pixels", None)])
def test_images_are_normalized_by_the_training_split_alone(digits, coloured, normalization, axes):
    images = coloured.train.images
    found = normalized(coloured, images, normalization)
    expected = (images - images.mean(axes)) / images.std(axes)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    noise = Split(np.full_like(digits.test.images, 200), digits.test.labels)
    other = dataclasses.replace(coloured, validation=noise, test=noise)
    np.testing.assert_array_equal(normalized(other, images, normalization), found)
    assert not np.allclose(normalized(digits, images, normalization), found, atol=0.1)


def test_half_is_from_minus_one_to_one_for_any_training_images(digits, coloured):
    images = digits.test.images
    for dataset in (digits, coloured):
        found = normalized(dataset, images, "half")
        np.testing.assert_allclose(found, (images / 255 - 0.5) / 0.5, atol=1e-6)


def test_normalization_takes_less_memory_than_the_images():
    images = np.zeros((5000, 32, 32, 3), np.uint8)
    tracemalloc.start()
    normalization_layer("channels", images)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < images.nbytes


def test_images_all_the_same_are_finite(digits):
    black = Split(np.zeros_like(digits.train.images), digits.train.labels)
    model = build_model(tiny, dataclasses.replace(digits, train=black))
    assert np.isfinite(to_numpy(model(digits.test.images[:2]))).all()


@pytest.mark.parametrize(
    ("architecture", "options", "words"),
    [
        ("resnet2", {}, "did you mean 'resnet20'?"),
        ("preact(activation='ellu')", {}, "ellu"),
        ("resnet20(residual=False, highway=True)", {}, "residual is False; spatial_dropout,"),
        ("gn_resnet(width=4)", {}, "gn_resnet width is 4; it must be at least 8"),
        ("resnet20", {"augmentation": "crop(32, 'reflect')"}, "less than the 32"),
        ("cifarnet", {"augmentation": "shrink"}, "cifarnet does not take images of 16 pixels, as"),
        ("resnet20", {"normalization": "pixel"}, "'pixel'; did you mean 'pixels'"),
    ],
)
def test_unknown_names_and_options_are_one_line(digits, refused, architecture, options, words):
    with refused(words):
        build_model(architecture, digits, **options)


def test_images_that_are_no_bytes_are_one_line(digits, refused):
    share = Split(digits.train.images / 255, digits.train.labels)
    with refused("images are of type float64; a model takes uint8, from 0 to 255"):
        build_model("cifarnet", dataclasses.replace(digits, train=share))


def test_images_too_small_for_an_architecture_are_one_line(digits, refused, with_images):
    with refused(
        "cifarnet can't be built for 16×16", "too small for its layers; give a larger image_size"
    ):
        build_model("cifarnet", with_images(digits, 16))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "epochs", "rate"),
    [
        ("cifarnet", 3, 1e-3),
        ("resnet20", 5, 2e-3),
        # Its batch normalization keeps 0.99 of its statistics in a step, so they settle late.
        ("preact", 40, 1e-3),
        ("gn_resnet(width=32)", 15, 3e-3),
    ],
)
def test_an_architecture_learns(digits, name, epochs, rate):
    kept = np.isin(digits.train.labels, [0, 1, 4])
    split = Split(digits.train.images[kept], np.searchsorted([0, 1, 4], digits.train.labels[kept]))
    part = dataclasses.replace(
        digits, class_names=("zero", "one", "four"), train=split, validation=split
    )
    model = build_model(name, part)
    settings = {"batch_size": 6, "optimizer": "adam", "schedule": "cosine"}
    history = fit(model, split, split, epochs=epochs, learning_rate=rate, **settings)
    assert history.best["val_accuracy"] >= 0.9


def tiny(x, classes, width: int = 4):
    """A network of a reader's own."""
    x = conv_bn_relu(x, width)
    return keras.layers.Dense(classes)(_pooled(x))


def _pooled(x):
    return keras.layers.GlobalAveragePooling2D()(x)


def _dense(classes):
    return keras.layers.Dense(classes, activation="softmax")


def softmax(x, classes):
    return _dense(classes)(_pooled(x))


def softmax_v2(x, classes):
    def softmax_v2(x):  # the name of TensorFlow's own
        return keras.ops.softmax(x)

    return keras.layers.Dense(classes, activation=softmax_v2)(_pooled(x))


def test_a_network_may_be_any_function(digits):
    model = build_model(tiny, digits)
    assert (model.name, model.architecture) == ("tiny", "tiny")
    assert model.source.startswith(inspect.getsource(tiny))
    assert inspect.getsource(_pooled) in model.source
    assert build_model("resnet20", digits).source == network_source("resnet20")
    made = {"keras": keras}
    exec("def net(x, classes): return keras.layers.Dense(classes)(x[:, 0, 0])", made)
    assert build_model(made["net"], digits).source == network_source(made["net"]) == ""
    last = lambda x, classes: keras.layers.Dense(classes, name="logits")(_pooled(x))  # noqa: E731
    assert build_model(last, digits).output_shape == (None, 10)


def test_an_error_of_a_layer_is_not_blamed_on_small_images(digits):
    class Broken(keras.layers.Layer):
        def call(self, x, training=False):
            if training:
                raise KeyError("mine")
            return x

    def network(x, classes):
        return tiny(Broken()(x), classes)

    with pytest.raises(KeyError, match="mine"):
        build_model(network, digits, augmentation="shrink(16, 1)")


@pytest.mark.parametrize("name", ["réseau", "_net", "网络", "__"])
def test_a_network_s_name_may_have_any_letters(digits, name):
    made = {"tiny": tiny}
    exec(f"def {name}(x, classes): return tiny(x, classes)", made)
    model = build_model(made[name], digits)
    assert model.architecture == name
    model.compile(loss="mse")
    model.fit(digits.train.images[:2], np.zeros((2, 10)), verbose=0)  # TensorFlow uses the names


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (lambda x, classes: None, "lambda returns None; it must return logits"),
        (lambda x, classes: x, "of shape (None, 32, 32, 3)"),
        (lambda x, classes: keras.layers.Dense(3)(_pooled(x)), "of shape (None, 3)"),
        (lambda x: x, "2 were given"),
        (lambda x, classes: tiny(keras.layers.ReLU(name="images")(x), classes), "used 2 times"),
        (lambda x, classes: keras.layers.Dense(classes, name="à b")(_pooled(x)), "name is 'à b'"),
        (functools.partial(tiny, width=8), "takes a name, or a function"),
        (softmax, "softmax ends in softmax; it must return logits, so leave that activation out"),
        (lambda x, classes: keras.layers.Softmax()(tiny(x, classes)), "lambda ends in softmax"),
        (lambda x, classes: keras.ops.sigmoid(tiny(x, classes)), "lambda ends in sigmoid"),
        (softmax_v2, "softmax_v2 ends in softmax_v2"),
        (lambda x, classes: keras.Sequential([_dense(classes)])(_pooled(x)), "ends in softmax"),
        (keras.Model, "Model can't be built for 32×32 images"),
        (3, "architecture '3' is not of the form"),
    ],
)
def test_a_function_that_makes_no_network_is_one_line(digits, refused, network, words):
    with refused(words):
        build_model(network, digits)


def test_the_source_of_a_network_has_the_functions_it_calls():
    def defined(architecture):
        tree = ast.parse(network_source(architecture))
        return [node.name for node in tree.body]

    found = defined("resnet20(dropout=0.5)")
    assert found[0] == "resnet20"
    assert {"basic_block", "conv", "batch_norm", "normal"} < set(found)
    assert "bottleneck_block" not in found
    assert len(set(found)) == len(found)
    assert defined(tiny) == [
        "tiny", "conv_bn_relu", "conv", "normal", "batch_norm", "_pooled",
    ]  # fmt: skip


CELL = """
def halved(x):
    return x / 2

class Block(keras.layers.Layer):
    def call(self, x):
        return halved(x)

class Group:
    blocks = [Block]

def network(x, classes):
    return keras.layers.Dense(classes)(Block()(x)[:, 0, 0])
"""


def test_the_source_of_a_network_in_a_cell_has_the_classes_that_it_uses():
    # As a notebook's kernel does: the cell has a name and lines, but no file.
    linecache.cache["a cell"] = (len(CELL), None, CELL.splitlines(keepends=True), "a cell")
    names = {"keras": keras, "__name__": "__main__"}
    exec(compile(CELL, "a cell", "exec"), names)
    tree = ast.parse(network_source(names["network"]))
    assert [node.name for node in tree.body] == ["network", "Block", "halved"]


def test_the_source_of_a_lambda_may_be_a_part_of_a_statement():
    networks = {
        "own": lambda x, classes: keras.layers.Dense(classes)(_pooled(x)),
    }
    assert network_source(networks["own"]).strip().startswith('"own": lambda x, classes')
