"""Architectures by name, and :func:`build_model`: a model of one, from raw images to logits."""

import numpy as np

from cifar_utils.augmentation import augmentation_layers
from cifar_utils.backend import dtype_policy, keras, set_random_seed
from cifar_utils.choices import parse_call
from cifar_utils.data.dataset import Dataset
from cifar_utils.errors import InputError, known_name
from cifar_utils.models.airbench import PatchWhitening, airbench
from cifar_utils.models.resnet import (
    cifarnet_worst,
    gn_resnet,
    preact,
    preact110,
    preact164,
    report_a,
    resnet18,
    resnet20,
    resnet34,
    resnet50,
    resnet56,
    resnet110,
)
from cifar_utils.models.vgg import cifarnet, fan, vgg19
from cifar_utils.provenance import code_of

ARCHITECTURES = {
    function.__name__: function
    for function in (
        resnet18, resnet20, resnet34, resnet50, resnet56, resnet110, preact110, preact164,
        preact, gn_resnet, report_a, cifarnet_worst, cifarnet, fan, vgg19, airbench,
    )
}  # fmt: skip

NORMALIZATIONS = ("channels", "pixels", "half")

WHITENING_IMAGES = 5000  # enough for the covariance of their patches


def build_model(
    architecture: str,
    dataset: Dataset,
    *,
    augmentation: str | None = None,
    normalization: str = "channels",
    precision: str = "auto",
    seed: int = 0,
) -> keras.Model:
    """A model from uint8 images ``(N, H, W, 3)`` to float32 logits ``(N, classes)``.

    Augmentation (in training only) and normalization are layers inside it. ``seed`` determines the
    initial weights.

    Parameters
    ----------
    architecture
        A name in :data:`ARCHITECTURES`, options allowed: ``"cifarnet(residual=False)"``.
    augmentation
        Names in :data:`AUGMENTATIONS`: ``"crop(padding=4), flip"``; ``None`` for none.
    normalization
        ``"channels"``: each channel by its mean and standard deviation over the training images.
        ``"pixels"``: all channels by one mean and deviation over all pixels of the training images
        (report D). ``"half"``: (x / 255 - 0.5) / 0.5, from -1 to 1 (report E).
    precision
        ``"float32"``, ``"mixed_bfloat16"`` or ``"auto"``; see
        :func:`~cifar_utils.backend.choose_precision`.

    Raises
    ------
    InputError
        Where a name or an option is unknown, or the images are too small for the architecture.

    """
    network = parse_call("architecture", architecture, ARCHITECTURES, given=2)
    augment = augmentation_layers(augmentation)
    known_name("normalization", normalization, NORMALIZATIONS)
    set_random_seed(seed)
    with dtype_policy(precision):
        images = keras.Input(dataset.image_shape, dtype="uint8", name="images")
        x = images
        for layer in augment:
            x = layer(x)
        normalize = normalization_layer(normalization, dataset.train.images)
        x = normalize(x)
        try:
            x = network(x, len(dataset.class_names))
        except (ValueError, TypeError) as error:
            size = "×".join(map(str, dataset.image_shape[:2]))
            # Keras sets its reason in bold, below a line that only names the layer.
            reason = str(error).rpartition("\x1b[1m")[2].partition("\x1b[0m")[0].splitlines()[0]
            raise InputError(
                f"{architecture} can't be built for {size} images: {reason}"
            ) from error
        logits = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
        model = keras.Model(images, logits, name=network.name)
    for layer in model.layers:
        if isinstance(layer, PatchWhitening):
            some = normalize(dataset.train.images[:WHITENING_IMAGES])
            layer.adapt(keras.ops.convert_to_numpy(some))
    model.architecture = repr(network)
    model.code = code_of([build_model, network.function, *map(type, augment)])
    return model


def normalization_layer(kind: str, images: np.ndarray) -> keras.Layer:
    """The layer that ``build_model`` calls ``kind``, for training ``images`` ``(N, H, W, C)``."""
    if kind == "half":
        return keras.layers.Rescaling(1 / 127.5, offset=-1, dtype="float32")
    channels = images.reshape(-1, images.shape[-1])
    # A histogram of 256 values is exact, and needs no copy of the images in floats.
    counts = np.stack([np.bincount(channel, minlength=256) for channel in channels.T])
    if kind == "pixels":
        counts = np.broadcast_to(counts.mean(axis=0), counts.shape)
    values = np.arange(256)
    mean = counts @ values / len(channels)
    variance = counts @ values**2 / len(channels) - mean**2
    return keras.layers.Normalization(
        mean=mean.tolist(), variance=np.maximum(variance, 1).tolist(), dtype="float32"
    )
