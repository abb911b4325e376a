"""Transfer (report B): a head is trained on the features of a frozen base, computed once.

The last layers of the base may then be trained with the head.
"""

import hashlib
import inspect
import json
import math
import shutil
import sys
import tempfile
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
from keras import layers

from cifar_utils.augmentation import augmentation_layers
from cifar_utils.backend import dtype_policy, keras, set_random_seed
from cifar_utils.data.dataset import Dataset, Split
from cifar_utils.errors import InputError, known_name
from cifar_utils.events import display_line, write_event
from cifar_utils.files import file_digest, made_folder, weights_file, write_atomically
from cifar_utils.models.fast import accelerate

# The variants of an image, each as steps along height and width.
FLIPS = {
    "none": [(1, 1)],
    "horizontal": [(1, 1), (1, -1)],
    "both": [(1, 1), (1, -1), (-1, 1), (-1, -1)],
}
LARGEST = float(np.finfo(np.float16).max)  # of the features that are kept


# The networks of Keras that were trained on ImageNet, by their names in lower case.
BASES = {
    name.lower(): function
    for name, function in vars(keras.applications).items()
    if inspect.isfunction(function)
}


def build_transfer_model(
    dataset: Dataset,
    *,
    base: str = "resnet50v2",
    weights: str | None = "imagenet",
    input_size: int = 224,
    dropout: float = 0.1,
    fine_tune_layers: int = 0,
    augmentation: str | None = None,
    precision: str = "auto",
    seed: int = 0,
    fast: bool = True,
) -> keras.Model:
    """A frozen base without its top, and a new head: a model from raw uint8 images to logits.

    It is two models in a row, ``model.get_layer("features")`` and ``model.get_layer("head")``, so
    that the head can be trained on features computed once. With ResNet50V2 it has 26,159,370
    parameters for 10 classes. The base's own ``preprocess_input`` scales the images.

    The head is report B's: a valid 3×3 convolution of 128 filters with ReLU (7×7 features to 5×5 at
    224 pixels), global average pooling, and dense layers of 512, 256 and 128 units, each with batch
    normalization, dropout and ReLU. The convolution is padded ("same") if the features have fewer
    than 3 places a side.

    Parameters
    ----------
    base
        A network of ``keras.applications``, such as ``"resnet50v2"`` or ``"mobilenet_v2"``.
        Capitals and underscores don't matter.
    weights
        ``"imagenet"`` (downloaded and checked by Keras), the path of a weights file, the folder of
        a run that trained the base, or ``None`` for random weights, whose accuracy says nothing
        about transfer. ``model.pretrained`` keeps the name of the file or folder, and the
        file's SHA-256.
    input_size
        Height and width to which images are resized, in pixels: at least 32, and for some bases
        more.
    fine_tune_layers
        How many of the base's last layers with weights are trained with the head. Batch
        normalization is not counted and stays frozen, because the other layers were trained with
        its statistics, scale and shift.
    augmentation
        As for :func:`~cifar_utils.models.build_model`; in training base and head together.

    Raises
    ------
    InputError
        Where a name or an option is unknown, ``input_size`` is too small, ``fine_tune_layers`` is
        more than the base has, or the weights can't be downloaded or read or don't fit.

    """
    name = known_name("unknown base", base.replace("_", "").lower(), BASES)
    augment = augmentation_layers(augmentation)
    set_random_seed(seed)
    with dtype_policy(precision):
        images = keras.Input((None, None, 3), dtype="float32", name="images")
        x = layers.Resizing(input_size, input_size, dtype="float32")(images)
        # The range that the ImageNet weights were trained with.
        x = sys.modules[inspect.unwrap(BASES[name]).__module__].preprocess_input(x)
        pretrained = _load_base(BASES[name], weights, input_size)
        _freeze(pretrained, fine_tune_layers)
        features = keras.Model(images, pretrained(x, training=False), name="features")
        head = _head(features.output.shape[1:], len(dataset.class_names), dropout)
        images = x = keras.Input(dataset.image_shape, dtype="uint8", name="images")
        for layer in augment:
            x = layer(x)
        model = keras.Model(images, head(features(x)), name=name)
        model = accelerate(model) if fast else model
    model.pretrained = _described(weights)
    return model


def _freeze(base: keras.Model, but: int) -> None:
    """Freeze batch normalization, and all ``but`` the last of the other layers with weights."""
    normalization = layers.BatchNormalization
    weighted = [x for x in base.layers if x.weights and not isinstance(x, normalization)]
    if not 0 <= but <= len(weighted):
        raise InputError(
            f"fine_tune_layers is {but}; it takes 0 to {len(weighted)}, the layers with weights "
            "of the base, batch normalization not counted"
        )
    trained = weighted[len(weighted) - but :]
    base.trainable = but > 0
    for layer in base.layers:
        layer.trainable = layer in trained


def _head(shape, classes: int, dropout: float) -> keras.Model:
    inputs = keras.Input(shape, name="features")
    padding = "valid" if min(shape[:2]) >= 3 else "same"
    x = layers.Conv2D(128, 3, padding=padding, activation="relu")(inputs)
    x = layers.GlobalAveragePooling2D()(x)
    for units in (512, 256, 128):
        x = layers.BatchNormalization()(layers.Dense(units)(x))
        x = layers.ReLU()(layers.Dropout(dropout)(x))
    logits = layers.Activation("linear", dtype="float32", name="logits")(layers.Dense(classes)(x))
    return keras.Model(inputs, logits, name="head")


def _load_base(base: Callable, weights: str | None, size: int) -> keras.Model:
    shape = (size, size, 3)
    try:
        if weights in (None, "imagenet") or not Path(weights).is_dir():
            return base(include_top=False, weights=weights, input_shape=shape)
        made = base(include_top=False, weights=None, input_shape=shape)
        trained = keras.models.load_model(weights_file(weights))
        if made.name not in [layer.name for layer in trained.layers]:
            raise ValueError(f"that run's model has no layer {made.name}")
        made.set_weights(trained.get_layer(made.name).get_weights())
        return made
    except Exception as error:  # Keras raises many kinds, also ValueError for a failed download
        reason = " ".join(str(error).split())[:240]
        raise InputError(
            f"{base.__name__} can't be made with input_size {size} and weights {weights!r} "
            f"({reason}); weights takes imagenet, None, a weights file or a run's folder"
        ) from error


def _described(weights: str | None) -> dict[str, str]:
    """Pretrained weights as a record names them: by name and the file's digest, not by path."""
    if weights in (None, "imagenet"):
        return {"weights": weights or "random"}
    digest = file_digest(weights_file(weights))
    return {"weights": Path(weights).resolve().name, "weights_sha256": digest}


def extract_features(
    model: keras.Model, dataset: Dataset, *, flips: str = "none", output: Path | str | None = None
) -> tuple[Split, Split]:
    """Compute the base's features of the training and the validation images once, and keep them.

    Each flipped variant of a training image has its own features. Training draws one variant for
    each image and epoch (:func:`~cifar_utils.training.fit`) and never runs the base.

    Parameters
    ----------
    flips
        ``"none"`` (one variant), ``"horizontal"`` (two) or ``"both"`` (four: horizontal and
        vertical).
    output
        A run's folder, which keeps the features; an interrupted computation goes on. With ``None``
        the features are deleted at the end of the process.

    Returns
    -------
    The training split with float16 features ``(N, variants, h, w, channels)`` as images, and the
    validation split with ``(N, h, w, channels)``; both are memory maps.

    Raises
    ------
    InputError
        Where ``flips`` is unknown, the features need more room than the disk has, or they are too
        large for float16.

    """
    variants = FLIPS[known_name("unknown flips", flips, FLIPS)]
    base = model.get_layer("features")
    # Images of several sizes give features of one shape.
    size = [layer.height for layer in base.layers if isinstance(layer, layers.Resizing)]
    facts = (dataset.fingerprint, size, base.output.shape, base.output.dtype)
    digest = hashlib.sha256(repr(facts).encode())
    for weight in base.get_weights():
        digest.update(np.ascontiguousarray(weight))
    scratch = tempfile.TemporaryDirectory(prefix="cifar-features-") if output is None else None
    folder = made_folder(Path(scratch.name if scratch else output) / "features")
    parts = [
        (folder / f"{name}-{digest.hexdigest()[:16]}.npy", split.images, steps)
        for name, split, steps in (
            (f"train-{flips}", dataset.train, variants),
            ("validation", dataset.validation, FLIPS["none"]),
        )
    ]
    numbers = sum((len(images) - _done(path)) * len(steps) for path, images, steps in parts)
    needed, free = 2 * numbers * math.prod(base.output.shape[1:]), shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"output {output or tempfile.gettempdir()} has {free / 1e9:.1f} GB free, and the "
            f"features need {needed / 1e9:.1f} GB; choose another output, fewer flips or a "
            "smaller input_size"
        )
    train, validation = (_compute_features(base, *part, output) for part in parts)
    if scratch:
        weakref.finalize(train, scratch.cleanup)
    return Split(train, dataset.train.labels), Split(validation[:, 0], dataset.validation.labels)


def _done(path: Path) -> int:
    """The number of images whose features a file has."""
    try:
        np.lib.format.open_memmap(path, "r")
        return json.loads(path.with_suffix(".json").read_text())["images"]
    except (OSError, ValueError, TypeError, KeyError):
        return 0


def _compute_features(base, path, images, variants, output) -> np.ndarray:
    shape = (len(images), len(variants), *base.output.shape[1:])
    done = _done(path)
    if not done:  # else the number of an earlier file would count for the new, empty one
        path.with_suffix(".json").unlink(missing_ok=True)
    kept = np.lib.format.open_memmap(path, "r+" if done else "w+", np.float16, shape)
    tell, started, first = display_line(""), time.monotonic(), done
    while done < len(images):
        stop = min(done + 64, len(images))
        for index, (vertical, horizontal) in enumerate(variants):
            batch = images[done:stop, ::vertical, ::horizontal]
            features = base.predict_on_batch(batch).astype(np.float32)
            if not (largest := np.abs(features).max()) <= LARGEST:  # or NaN
                raise InputError(
                    f"the base gives features of up to {largest:.3g}, and they are kept as numbers "
                    f"up to {LARGEST:,.0f}; its training has probably failed, so give other weights"
                )
            kept[done:stop, index] = features
        done = stop
        kept.flush()
        write_atomically(path.with_suffix(".json"), json.dumps({"images": done}))
        left = (time.monotonic() - started) / (done - first) * (len(images) - done)
        kind = path.name.split("-")[0]
        told = f"features of {done:,} of {len(images):,} {kind} images; {left:,.0f} s left"
        tell(told)
        write_event(output, "batch", phase=told)
    tell("")
    return kept
