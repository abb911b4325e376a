import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from cifar_utils.backend import keras
from cifar_utils.models import build_model
from cifar_utils.models.resnet import Options, bottleneck_block, sparse_gate


def layers_of(model, *kinds):
    return [layer for layer in model.layers if isinstance(layer, kinds)]


def test_a_plain_network_is_the_residual_one_without_shortcuts(digits, built):
    residual = built("resnet20")
    plain = build_model("resnet20(residual=False)", digits, fast=False)
    assert not layers_of(plain, keras.layers.Add)
    kernels = [
        [x.kernel.shape for x in layers_of(model, keras.layers.Conv2D, keras.layers.Dense)]
        for model in (residual, plain)
    ]
    assert [len(shapes) for shapes in kernels] == [20 + 2, 20]
    left = list(kernels[0])
    for shape in kernels[1]:
        left.remove(shape)
    assert {shape[:2] for shape in left} == {(1, 1)}
    assert np.isfinite(to_numpy(plain(digits.test.images[:2]))).all()


def made_by(model, tensor):
    return next(layer for layer in model.layers if layer.output is tensor)


def bottlenecks(x, classes):
    options = Options(0, 0, spatial_dropout=0.5, gate=0, highway=False, residual=True)
    for filters, strides in ((8, 1), (8, 1), (8, 2), (8, 1)):
        x = bottleneck_block(x, filters, strides, options)
    return keras.layers.Dense(classes)(keras.layers.GlobalAveragePooling2D()(x))


@pytest.mark.parametrize(
    ("network", "blocks", "projections"),
    [("resnet20(spatial_dropout=0.5)", 9, 2), (bottlenecks, 4, 2)],
)
def test_sparse_dropout_follows_the_addition_of_each_identity_block(
    digits, network, blocks, projections
):
    model = build_model(network, digits, fast=False)
    dropouts = layers_of(model, keras.layers.SpatialDropout2D)
    assert {layer.rate for layer in dropouts} == {0.5}
    dropped = [made_by(model, layer.input) for layer in dropouts]
    additions = layers_of(model, keras.layers.Add)
    assert (len(additions), len(dropped)) == (blocks, blocks - projections)
    for layer in additions:
        shortcut = made_by(model, layer.input[0])
        if isinstance(shortcut, keras.layers.BatchNormalization):
            shortcut = made_by(model, shortcut.input)
        assert (layer in dropped) != isinstance(shortcut, keras.layers.Conv2D)


def test_blocks_take_dropout_gates_and_highways(digits):
    text = "dropout=0.5, head_dropout=0.3, gate=0.1, highway=True"
    model = build_model(f"resnet20({text})", digits, fast=False)
    rates = [layer.rate for layer in layers_of(model, keras.layers.Dropout)]
    assert rates == [0.5] * 9 + [0.3]
    gates = [each for each in model.operations if type(each).__name__.startswith("Abs")]
    assert len(gates) == len(layers_of(model, keras.layers.Multiply)) == 9


def test_the_gate_drops_an_image_s_branch_whole_or_not_at_all():
    y = np.zeros((3, 2, 2, 4), np.float32)
    y[0, 1, 1, 2], y[1, 0, 0, 0], y[1, 0, 0, 1] = -0.5, 0.2, 0.1
    kept = to_numpy(sparse_gate(y, 0.3))
    np.testing.assert_array_equal(kept, y * np.reshape([1, 0, 1], (3, 1, 1, 1)))


def test_a_highway_starts_by_carrying_most_through(digits):
    model = build_model("resnet20(highway=True)", digits, fast=False)
    gate = next(
        x for x in layers_of(model, keras.layers.Conv2D) if x.activation.__name__ == "sigmoid"
    )
    assert to_numpy(gate(np.zeros((1, 4, 4, 16)))).max() < 0.3


def test_preact_adds_the_sum_before_or_the_strided_convolution_in_its_place(built):
    layers, model = keras.layers, built("preact")
    trunk = model.layers[2]
    for layer in model.layers[3:]:
        if isinstance(layer, layers.Add):
            assert layer.input[0] is trunk.output
        if isinstance(layer, layers.Add) or getattr(layer, "strides", 1) == (2, 2):
            trunk = layer


def test_preact_s_28_kernels_are_he_normal_and_penalized(built, digits):
    other = build_model("preact(l2=0.0001)", digits, precision="float32", fast=False)
    for model, l2 in ((built("preact"), 1e-6), (other, 1e-4)):
        kernels = layers_of(model, keras.layers.Conv2D, keras.layers.Dense)
        assert {type(layer.kernel_initializer).__name__ for layer in kernels} == {"HeNormal"}
        penalty = sum(l2 * np.square(to_numpy(layer.kernel)).sum() for layer in kernels)
        assert float(sum(model.losses)) == pytest.approx(penalty, rel=1e-4)
        assert len(model.losses) == len(kernels) == 28


def test_preact_s_other_reading_and_its_classes(digits, with_images):
    elu = build_model("preact(activation='elu')", digits, fast=False)
    found = [x.activation.__name__ for x in layers_of(elu, keras.layers.Activation)[:-1]]
    assert found == ["elu"] * 24
    hundred = build_model("preact", with_images(digits, 32, classes=100), fast=False)
    assert hundred.count_params() == 1_585_828


def test_gn_resnet_stays_within_report_a_s_budget_and_uses_it(digits, with_images):
    def size(width, data):
        return build_model(f"gn_resnet(width={width})", data, fast=False).count_params()

    for width in (8, 32, 100):
        budget = 9 * width**2 + 30 * width + 36
        assert 0.75 * budget < size(width, digits) <= budget
    assert size(32, with_images(digits, 32, classes=100)) == size(32, digits) + 90 * 32 + 90


@pytest.mark.parametrize(("dropout_in", "count"), [("block", 3), ("convolution", 6)])
def test_gn_resnet_drops_out_after_blocks_or_rounds(digits, dropout_in, count):
    text = f"gn_resnet(width=32, dropout=0.5, dropout_in={dropout_in!r})"
    model = build_model(text, digits, fast=False)
    assert len(layers_of(model, keras.layers.Dropout)) == count


def test_separable_is_within_report_a_s_budget_and_widens_once(built):
    model = built("separable")
    assert model.count_params() == 91_946 <= 93_036
    filters = [layer.filters for layer in layers_of(model, keras.layers.SeparableConv2D)]
    assert filters == [64] * 5 + [112] * 5
    assert len(layers_of(model, keras.layers.Add)) == 9
