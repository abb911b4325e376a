"""Architectures by name, and :func:`build_model`, which makes a model of one."""

import ast
import inspect
import math
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from textwrap import dedent

import numpy as np

from cifar_utils.augmentation import augmentation_layers
from cifar_utils.backend import dtype_policy, keras, set_random_seed
from cifar_utils.choices import Call, parse_call
from cifar_utils.data.dataset import Dataset
from cifar_utils.errors import InputError, known_name, short
from cifar_utils.models.fast import accelerate
from cifar_utils.models.graph import has_graph, layers_of

NORMALIZATIONS = ("channels", "pixels", "half")

WHITENING_PIXELS = 5000 * 32 * 32  # enough for the covariance of their patches


def build_model(
    architecture: str | Callable,
    dataset: Dataset,
    *,
    augmentation: str | None = None,
    normalization: str = "channels",
    precision: str = "auto",
    seed: int = 0,
    fast: bool = True,
) -> keras.Model:
    """A model from uint8 images ``(N, H, W, 3)`` to float32 logits ``(N, classes)``.

    Augmentation (in training only) and normalization are layers inside it. ``seed`` determines the
    initial weights. The model has three more attributes. ``architecture`` is the network's name and
    options. ``source`` is :func:`network_source`'s text. ``own`` says whether the network is your
    own function.

    Parameters
    ----------
    architecture
        A name in :data:`~cifar_utils.choices.REGISTRIES`, with or without options:
        ``"cifarnet(residual=False)"``. Or your own function ``(x, classes) -> logits``, which gets
        normalized images as a Keras tensor ``(N, H, W, 3)``.
    augmentation
        Names in its ``"augmentation"``: ``"crop(padding=4), flip"``; ``None`` for none.
    normalization
        ``"channels"``: each channel by its mean and standard deviation over the training images.
        ``"pixels"``: all channels by one mean and deviation over all pixels of the training images
        (report D). ``"half"``: (x / 255 - 0.5) / 0.5, from -1 to 1 (report E).
    precision
        ``"float32"``, ``"mixed_bfloat16"`` or ``"auto"``; see
        :func:`~cifar_utils.backend.choose_precision`.
    fast
        Whether :func:`~cifar_utils.models.fast.accelerate` exchanges Keras's layers for faster ones
        that compute the same.

    Raises
    ------
    InputError
        Where a name, an option or the seed is not allowed, or the network's function raises a
        ValueError or TypeError (the images may be too small for it) or does not return logits. Its
        other exceptions pass.

    """
    network = _network(architecture)
    augment = augmentation_layers(augmentation)
    known_name("unknown normalization", normalization, NORMALIZATIONS)
    set_random_seed(seed)
    with dtype_policy(precision):
        images = keras.Input(dataset.image_shape, dtype="uint8", name="images")
        x = images
        for layer in augment:
            x = layer(x)
        normalize = normalization_layer(normalization, dataset.train.images)
        x = _logits(network, normalize(x), dataset)
        logits = keras.layers.Activation("linear", dtype="float32", name="float32_logits")(x)
        try:
            # TensorFlow takes few characters in names, and a function's name may have any.
            name = network.name if network.name.isascii() else None
            model = keras.Model(images, logits, name=name and name.lstrip("_"))
        except ValueError as error:  # two layers of one name
            raise InputError(f"{network!r} can't be built: {error}") from error
        for layer in layers_of(model):
            if not re.fullmatch(r"[A-Za-z0-9_.>-]+", layer.name):
                raise InputError(
                    f"{network!r} can't be built: a layer's name is {layer.name!r}; "
                    "use the letters a to z, digits, and _"
                )
        model = accelerate(model) if fast else model
        _check_shrunk(model, network)
    for layer in model.layers:
        if hasattr(layer, "whiten"):
            images = dataset.train.images  # a folder's are in order of their classes
            pixels = len(images) * math.prod(images.shape[1:3])
            some = normalize(images[:: -(-pixels // WHITENING_PIXELS)])
            layer.whiten(keras.ops.convert_to_numpy(some))
    model.architecture = repr(network)
    model.source = network_source(architecture)
    model.own = callable(architecture)
    return model


def _logits(network: Callable, x: keras.KerasTensor, dataset: Dataset) -> keras.KerasTensor:
    """What a network gives for images ``x``; an InputError unless these are logits."""
    classes = len(dataset.class_names)
    try:
        y = network(x, classes)
    except InputError:  # of this package's own networks
        raise
    except (ValueError, TypeError) as error:
        size = "×".join(map(str, dataset.image_shape[:2]))
        # Keras gives the reason in bold, below a line that only names the layer.
        reason = str(error).rpartition("\x1b[1m")[2].partition("\x1b[0m")[0].strip()
        reason = reason.partition("\n")[0] or type(error).__name__
        if "zero or negative" in reason:  # of a layer's output
            reason = "they are too small for its layers; give a larger image_size"
        raise InputError(f"{network!r} can't be built for {size} images: {reason}") from error
    if getattr(y, "shape", None) != (None, classes):
        found = f"a tensor of shape {y.shape}" if hasattr(y, "shape") else repr(y)
        raise InputError(
            f"{network!r} returns {found}; it must return logits of shape {(None, classes)}, a "
            "number for each image and class"
        )
    if ends := _squashed(y):
        raise InputError(
            f"{network!r} ends in {ends}; it must return logits, so leave that activation out"
        )
    return y


def _squashed(x: keras.KerasTensor) -> str:
    """The activation that made a tensor, if that gives probabilities; else nothing."""
    operation = x._keras_history.operation
    while has_graph(operation):
        operation = operation.outputs[0]._keras_history.operation
    activation = getattr(operation, "activation", None) or operation
    name = getattr(activation, "__name__", type(activation).__name__).lower()
    return name if name in ("softmax", "softmax_v2", "sigmoid") else ""  # TensorFlow has the second


def _check_shrunk(model: keras.Model, network: Call) -> None:
    """Raise an InputError where the network does not take the images that augmentation shrinks."""
    for layer in model.layers:
        if not hasattr(layer, "shrinks"):
            continue
        image = np.zeros((1, *model.input.shape[1:]), model.input.dtype)
        state = model.trainable_variables, model.non_trainable_variables
        layer.shrinks = True
        try:
            model.stateless_call(*state, image, training=True)  # changes no variable
        except Exception as error:  # each backend has its own
            layer.shrinks = False
            model.stateless_call(*state, image, training=True)  # its own error, if any size has it
            raise InputError(
                f"{network!r} does not take images of {layer.size} pixels, as shrink makes them: "
                "its last pooling must be global, and no layer may need more pixels"
            ) from error
        finally:
            layer.shrinks = False


def network_source(architecture: str | Callable) -> str:
    """The source of a network's function, then of the functions that it uses.

    These are the functions that it names, directly or through others, in this package's models or
    in the function's own module; for a function outside of this package, also classes in its own
    module. Empty where there is no source.

    Parameters
    ----------
    architecture
        As for :func:`build_model`.

    """
    return "\n\n".join(_sources(_network(architecture).function, set()))


def _network(architecture: str | Callable) -> Call:
    """The function that is named or given, with its options."""
    if not callable(architecture):
        return parse_call("architecture", architecture)
    name = getattr(architecture, "__name__", "").strip("<>")  # of a lambda it is "<lambda>"
    if not name:  # a functools.partial
        raise InputError(
            f"architecture is {short(architecture)}; it takes a name, or a function "
            "(x, classes) -> logits; write what it is given as a function of its own"
        )
    return Call(name, {name: architecture})


def _source(thing: Callable) -> str:
    with suppress(OSError, TypeError):
        return dedent(inspect.getsource(thing))
    # Before 3.13, Python finds the methods of a class in a notebook's cell, but not the class.
    for method in _functions(thing):
        with suppress(OSError, SyntaxError):
            text = "".join(inspect.findsource(method)[0])
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ClassDef) and node.name == thing.__name__:
                    return ast.get_source_segment(text, node)
    return ""


def _functions(thing: Callable) -> list[Callable]:
    """A function, or the methods of a class."""
    things = [inspect.unwrap(thing), *getattr(thing, "__dict__", {}).values()]
    return [each for each in things if inspect.isfunction(each)]


def _sources(function: Callable, seen: set[Callable]) -> Iterator[str]:
    seen.add(function)
    source = _source(function)
    yield source
    known = next((each.__globals__ for each in _functions(function)), {})
    with suppress(SyntaxError):  # the lines of a lambda may be a part of a statement
        for node in ast.walk(ast.parse(source)):
            called = known.get(node.id) if isinstance(node, ast.Name) else None
            module = getattr(called, "__module__", None) or ""
            ours = module.startswith(f"{__package__}.")
            part = inspect.isfunction(called) or (inspect.isclass(called) and not ours)
            own = module == function.__module__ or ours
            if part and own and called not in seen:
                yield from _sources(called, seen)


def normalization_layer(kind: str, images: np.ndarray) -> keras.Layer:
    """A layer for ``build_model``'s ``normalization``, by training ``images`` ``(N, H, W, C)``."""
    if kind == "half":
        return keras.layers.Rescaling(1 / 127.5, offset=-1, dtype="float32")
    pixels = images[0].size // images.shape[-1] * len(images)
    # A histogram of 256 values is exact, and needs a copy of a few images alone.
    counts = np.zeros((images.shape[-1], 256))
    for start in range(0, len(images), 1000):
        some = images[start : start + 1000].reshape(-1, images.shape[-1])
        counts += [np.bincount(channel, minlength=256) for channel in some.T]
    if kind == "pixels":
        counts = np.broadcast_to(counts.mean(axis=0), counts.shape)
    values = np.arange(256)
    mean = counts @ values / pixels
    deviation = np.sqrt(np.maximum(counts @ values**2 / pixels - mean**2, 1))
    # Normalization would compute the same, but can't be exported to ONNX.
    scale, offset = (1 / deviation).tolist(), (-mean / deviation).tolist()
    return keras.layers.Rescaling(scale, offset, dtype="float32")
