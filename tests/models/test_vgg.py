import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from cifar_utils.backend import keras
from cifar_utils.models import build_model


def layers_of(model, *kinds):
    return [layer for layer in model.layers if isinstance(layer, kinds)]


@pytest.mark.parametrize("name", ["cifarnet", "cifarnet_worst", "vgg19"])
def test_a_factor_thins_each_convolution(built, digits, name):
    models = built(name), build_model(f"{name}(width=0.5)", digits, fast=False)
    convolutions = [layers_of(model, keras.layers.Conv2D) for model in models]
    filters = [[layer.filters for layer in row] for row in convolutions]
    assert filters[1] == [count / 2 for count in filters[0]]


def test_cifarnet_for_larger_images_has_report_e_s_heads(digits, with_images):
    larger = with_images(digits, 64, classes=200)
    wide = build_model("cifarnet(pool=2)", larger, fast=False)
    assert wide.layers[-2].kernel.shape == (4096, 200)
    deep = build_model("cifarnet(deep=True)", larger, fast=False)
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
        model = build_model(f"cifarnet(variance={variance})", digits, fast=False)
        kernel = to_numpy([x for x in model.layers if "conv" in x.name][5].kernel)
        measured = kernel.var() * np.prod(kernel.shape[:3])
        assert measured == pytest.approx(variance, rel=0.05)


@pytest.mark.parametrize(("batch_norm", "residual"), [(True, True), (False, False)])
def test_vgg19_has_all_its_convolutions_in_every_reading(digits, batch_norm, residual):
    text = f"vgg19(width=0.05, batch_norm={batch_norm}, residual={residual})"
    model = build_model(text, digits, fast=False)
    filters = [x.filters for x in layers_of(model, keras.layers.Conv2D)]
    assert filters == [3] * 2 + [6] * 2 + [13] * 4 + [26] * 8
    assert len(layers_of(model, keras.layers.BatchNormalization)) == 16 * batch_norm
    # All inputs are added but those of each stage's first convolution.
    assert len(layers_of(model, keras.layers.Add)) == (16 - 5) * residual


def test_vgg19_takes_images_that_shrink_makes_smaller(digits):
    build_model("vgg19(width=0.05)", digits, augmentation="shrink(9, 1)")
