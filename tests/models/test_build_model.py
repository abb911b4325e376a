import dataclasses

import numpy as np
import pytest

from cifar_utils.backend import keras
from cifar_utils.data import Split
from cifar_utils.models import ARCHITECTURES, build_model
from cifar_utils.models.augmentation import augmentation_layers
from cifar_utils.models.resnet import SparseGate
from cifar_utils.parameters import InputError
from cifar_utils.training import fit

COUNTS = {
    "fan": (87_316_426, 87_312_394),
    "cifarnet": (2_444_672, 2_441_728),
    "preact": (1_574_218, 1_570_378),
    "cifarnet_worst": (7_713_874, 7_712_118),
    "resnet18": (11_183_562, 11_173_962),
    "resnet34": (21_299_146, 21_282_122),
    "resnet50": (23_573_962, 23_520_842),
    "resnet110": (1_739_002, 1_730_714),
    "preact110": (1_738_618, 1_730_522),
    "preact164": (1_727_482, 1_703_258),
    "vgg19": (20_576_842, 20_565_834),
}


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def same_weights(a, b):
    return all(map(np.array_equal, a.get_weights(), b.get_weights()))


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_as_many_as_reported(built, name):
    model = built(name)
    trained = sum(np.prod(weight.shape) for weight in model.trainable_weights)
    assert (model.count_params(), trained) == COUNTS[name]


def test_preact_for_100_classes_and_resnet20_are_as_large_as_reported(digits, with_images, built):
    model = build_model("preact", with_images(digits, 32, classes=100))
    assert model.count_params() == 1_585_828
    assert 260_000 < built("resnet20").count_params() < 280_000
    assert built("cifarnet").count_params() == (
        build_model("cifarnet(residual=False)", digits).count_params()
    )


@pytest.mark.parametrize("width", [8, 9, 31, 32, 40, 64, 100, 200])
def test_gn_resnet_stays_within_report_a_s_budget_and_uses_it(digits, with_images, width):
    budget = 9 * width**2 + 30 * width + 36
    size = build_model(f"gn_resnet(width={width})", digits).count_params()
    assert 0.75 * budget < size <= budget
    larger = build_model(f"gn_resnet(width={width})", with_images(digits, 32, classes=100))
    assert larger.count_params() == size + 90 * width + 90


def test_cifarnet_for_larger_images_has_report_e_s_heads(digits, with_images):
    larger = with_images(digits, 64, classes=200)
    wide = build_model("cifarnet(pool=2)", larger)
    assert wide.layers[-2].kernel.shape == (4096, 200)
    deep = build_model("cifarnet(deep=True)", larger)
    assert deep.layers[-2].kernel.shape == (512, 200)
    filters = [x.filters for x in deep.layers if isinstance(x, keras.layers.Conv2D)]
    assert filters == [64, 128, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512]
    # Its 2,442,112 parameters before the last layer; four more convolutions, with what goes with
    # them, have 1,180,160 + 3 * 2,359,808 + 4 * 4 * 512.
    counts = {wide: 2_442_112 + 4096 * 200, deep: 2_442_112 + 8_267_776 + 512 * 200}
    for model, count in counts.items():
        assert model.count_params() == count
        logits = to_numpy(model(larger.test.images[:2]))
        assert logits.shape == (2, 200)
        assert logits.dtype == np.float32


def test_an_initial_variance_is_that_of_the_weights_times_the_fan_in(digits):
    for variance in (2.0, 1 / 3):
        model = build_model(f"cifarnet(variance={variance})", digits)
        kernel = to_numpy([x for x in model.layers if "conv" in x.name][5].kernel)
        measured = kernel.var() * np.prod(kernel.shape[:3])
        assert measured == pytest.approx(variance, rel=0.05)


def layers_of(model, kind):
    return [layer for layer in model.layers if type(layer) is kind]


def test_vgg19_adds_the_input_of_all_convolutions_but_each_stage_s_first(digits):
    model = build_model("vgg19(batch_norm=False, residual=True)", digits)
    assert len(layers_of(model, keras.layers.Add)) == 16 - 5
    plain = build_model("vgg19(batch_norm=False)", digits)
    assert model.count_params() == plain.count_params()
    assert not layers_of(plain, keras.layers.Add)


def test_blocks_take_dropout_gates_and_highways(digits):
    text = "dropout=0.5, head_dropout=0.3, spatial_dropout=0.4, gate=0.1, highway=True"
    model = build_model(f"resnet20({text})", digits)
    rates = [layer.rate for layer in layers_of(model, keras.layers.Dropout)]
    assert rates == [0.5] * 9 + [0.3]
    # Not in the first block of a stage, whose shortcut changes the image.
    rates = [layer.rate for layer in layers_of(model, keras.layers.SpatialDropout2D)]
    assert rates == [0.4] * 6
    assert len(layers_of(model, SparseGate)) == len(layers_of(model, keras.layers.Multiply)) == 9


def test_the_gate_drops_an_image_s_branch_whole_or_not_at_all():
    y = np.zeros((3, 2, 2, 4), np.float32)
    y[0, 1, 1, 2], y[1, 0, 0, 0], y[1, 0, 0, 1] = -0.5, 0.2, 0.1
    kept = to_numpy(SparseGate(0.3)(y))
    np.testing.assert_array_equal(kept, y * np.reshape([1, 0, 1], (3, 1, 1, 1)))


def test_a_highway_starts_by_carrying_most_through(digits):
    model = build_model("resnet20(highway=True)", digits)
    gate = next(
        x for x in layers_of(model, keras.layers.Conv2D) if x.activation.__name__ == "sigmoid"
    )
    assert to_numpy(gate(np.zeros((1, 4, 4, 16)))).max() < 0.3


@pytest.mark.parametrize("name", ARCHITECTURES)
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


def test_mixed_precision_computes_in_bfloat16_and_gives_float32_logits(digits):
    model = build_model("resnet20", digits, precision="mixed_bfloat16")
    assert {layer.compute_dtype for layer in model.layers if "conv" in layer.name} == {"bfloat16"}
    assert {weight.dtype for weight in model.trainable_weights} == {"float32"}
    logits = to_numpy(model(digits.test.images[:2]))
    assert logits.dtype == np.float32
    assert keras.config.dtype_policy().name == "float32"


def test_the_seed_gives_the_weights(digits):
    models = [
        build_model("resnet20", digits, augmentation="crop, flip", seed=seed) for seed in (3, 3, 4)
    ]
    assert same_weights(models[0], models[1])
    assert not same_weights(models[0], models[2])


def test_images_are_normalized_by_the_training_split_alone(digits):
    def normalized(dataset, images):
        model = build_model("resnet20", dataset, precision="float32")
        (layer,) = [x for x in model.layers if isinstance(x, keras.layers.Normalization)]
        return to_numpy(layer(images))

    noise = Split(np.full_like(digits.test.images, 200), digits.test.labels)
    train = np.random.default_rng(0).integers(0, [40, 150, 256], digits.train.images.shape)
    split = Split(train.astype(np.uint8), digits.train.labels)
    dataset = dataclasses.replace(digits, train=split)
    measured = normalized(dataset, split.images)
    np.testing.assert_allclose(measured.mean((0, 1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(measured.std((0, 1, 2)), 1, atol=1e-3)
    other = dataclasses.replace(dataset, validation=noise, test=noise)
    np.testing.assert_array_equal(normalized(other, split.images), measured)
    assert not np.allclose(normalized(digits, split.images), measured, atol=0.1)


def test_images_all_the_same_are_finite(digits):
    black = Split(np.zeros_like(digits.train.images), digits.train.labels)
    model = build_model("resnet20", dataclasses.replace(digits, train=black))
    assert np.isfinite(to_numpy(model(digits.test.images[:2]))).all()


def test_augmentation_acts_in_training_only(digits):
    text = "crop(4), flip, rotation, shift"
    plain = build_model("resnet20", digits, precision="float32")
    model = build_model("resnet20", digits, augmentation=text, precision="float32")
    model.set_weights(plain.get_weights())
    images = digits.test.images[:8]
    np.testing.assert_array_equal(to_numpy(model(images)), to_numpy(plain(images)))
    first = to_numpy(model(images, training=True))
    assert not np.allclose(first, to_numpy(model(images, training=True)), atol=1e-2)


def test_a_saved_model_gives_the_same_logits(digits, tmp_path):
    text = "crop(2, 'reflect'), flip, rotation, shift"
    model = build_model("resnet20(dropout=0.1)", digits, augmentation=text, precision="auto")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    images = digits.test.images
    np.testing.assert_array_equal(to_numpy(loaded(images)), to_numpy(model(images)))
    assert loaded.layers[1].mode == "reflect"


@pytest.mark.parametrize(
    ("architecture", "augmentation", "words"),
    [
        ("resnet2", None, "did you mean 'resnet20'?"),
        ("resnet20(drop=0.1)", None, "did you mean 'dropout'?"),
        ("resnet20(dropout='high')", None, "takes a number"),
        ("resnet20(dropout=1.5)", None, "between 0 and 1"),
        ("vgg19(units=0)", None, "expected a positive integer"),
        ("preact(activation='ellu')", None, "ellu"),
        ("resnet20(gate=-1)", None, "threshold above 0"),
        ("resnet20(stages=1)", None, "unknown option"),
        ("gn_resnet(width=4)", None, "8 or more"),
        ("gn_resnet(dropout_in='head')", None, "known: block, convolution"),
        ("resnet20, preact", None, "exactly one of"),
        ("", None, "exactly one of"),
        ("resnet20", "crp", "did you mean 'crop'?"),
        ("resnet20", "crop(0)", "whole number of pixels >= 1"),
        ("resnet20", "crop(mode='edge')", "crop mode 'edge'; known: constant, reflect, symmetric"),
        ("resnet20", "crop(32, 'reflect')", "less than the 32"),
        ("resnet20", "flip('up')", "flip direction 'up'; known: horizontal, vertical"),
        ("resnet20", "rotation(0)", "> 0"),
        ("resnet20", "rotation(200)", "<= 180"),
        ("resnet20", "shift(1)", "fraction in (0, 1)"),
    ],
)
def test_unknown_names_and_options_are_one_line(digits, architecture, augmentation, words):
    with pytest.raises(InputError) as error:
        build_model(architecture, digits, augmentation=augmentation)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "size"), [("cifarnet", 16), ("fan", 14), ("vgg19", 31), ("preact", 24)]
)
def test_images_too_small_for_an_architecture_are_one_line(digits, with_images, name, size):
    with pytest.raises(InputError, match=rf"^{name} can't be built for {size}×{size}") as error:
        build_model(name, with_images(digits, size))
    assert "negative" in str(error.value)
    assert "\n" not in str(error.value)


def test_no_augmentation_has_two_more_names():
    assert augmentation_layers(None) == augmentation_layers("none") == augmentation_layers("") == []


@pytest.mark.parametrize(
    ("name", "epochs", "rate"),
    [
        ("cifarnet", 3, 1e-3),
        pytest.param("resnet20", 5, 2e-3, marks=pytest.mark.slow),
        pytest.param("preact", 5, 1e-3, marks=pytest.mark.slow),
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


@pytest.mark.parametrize("name", ["fan", "vgg19", "resnet18"])
def test_a_large_architecture_lowers_its_loss(built, digits, name):
    model = built(name)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = [float(model.train_on_batch(*(x[:4] for x in digits.train))) for _ in range(3)]
    assert min(losses[1:]) < losses[0]
