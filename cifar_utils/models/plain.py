"""The plain model that is saved: Keras's own layers, in float32, without augmentation."""

from typing import Any

import keras
from keras import ops

from cifar_utils.models.graph import NO_CONFIG, has_graph


def to_plain(model: keras.Model) -> keras.Model:
    """The same model made of Keras's own layers, in float32, without augmentation, not compiled.

    A reader's own layers and Lambda layers stay as they are.
    """
    made: dict[int, tuple[keras.Layer, keras.Layer]] = {}
    plain = _rebuilt(model, made)
    for layer, new in made.values():
        if not has_graph(layer):
            for variable, value in zip(new.variables, layer.variables, strict=True):
                variable.assign(ops.copy(value))  # JAX may free the other's memory
    return plain


def _rebuilt(model: keras.Model, made: dict) -> keras.Model:
    """The model with plain layers; ``made`` gets old and new layers by the old's id.

    It has its own recursion into models within the model. Keras's recursion compiles those that are
    compiled, and takes no ``call_function`` for a Sequential one.
    """
    chain = isinstance(model, keras.Sequential)
    ends = (model.inputs[0], model.outputs[0]) if chain else (model.input, model.output)
    graph = keras.Model(*ends, name=model.name)  # it is not compiled

    def replacement(layer):
        if not isinstance(layer, keras.Layer):
            return layer
        if id(layer) not in made:
            new = _rebuilt(layer, made) if has_graph(layer) else _plain_layer(layer)
            made[id(layer)] = layer, new
        return made[id(layer)][1]

    def new_input(x):
        dtype = "float32" if x.dtype.endswith("float16") else x.dtype
        return keras.Input(batch_shape=x.shape, dtype=dtype, name=x.name)

    inputs = keras.tree.map_structure(new_input, graph.input)
    rebuilt = keras.models.clone_model(graph, inputs, replacement, _call_plainly)
    if not model.trainable:
        rebuilt.trainable = False
    return rebuilt


def _plain_layer(layer: keras.Layer) -> keras.Layer:
    kind = type(layer).__base__ if _is_ours(layer) else type(layer)
    changes: dict[str, Any] = {}
    if layer.dtype_policy.name.endswith("float16"):
        changes["dtype"] = "float32"
    if hasattr(layer, "whiten"):
        changes["trainable"] = False
    if _is_ours(getattr(layer, "kernel_initializer", None)):
        changes["kernel_initializer"] = "zeros"
    try:
        config = kind.get_config(layer)
        if "activation" in config:  # a function of a reader's own has no configuration
            changes["activation"] = layer.activation
        return kind.from_config(_in_float32(config) | changes)
    except (*NO_CONFIG, ValueError):
        return layer  # a Lambda, or a reader's own layer with an incomplete configuration


def _in_float32(config: Any) -> Any:
    """A configuration without half precision, also of the layers that a wrapper holds."""
    if isinstance(config, dict):
        return {
            key: "float32" if key == "dtype" and "float16" in str(value) else _in_float32(value)
            for key, value in config.items()
        }
    return [*map(_in_float32, config)] if type(config) is list else config


def _is_ours(thing: Any) -> bool:
    return type(thing).__module__.startswith("cifar_utils.models.")


def foreign_layers(model: keras.Model) -> list[str]:
    """The names of a model's layers that Keras can load only with their author's code.

    Raises
    ------
    NotImplementedError
        Where a layer can't be saved, because it has no ``get_config``.

    """
    return [row["name"] for row in model.get_config()["layers"] if _is_foreign(row)]


def _is_foreign(value: Any) -> bool:
    if isinstance(value, dict):
        module = str(value.get("module", "keras")).partition(".")[0]
        own = module != "keras" or value.get("class_name") == "__lambda__"
        return own or any(map(_is_foreign, value.values()))
    return isinstance(value, list | tuple) and any(map(_is_foreign, value))


def _call_plainly(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
    if type(layer).__module__.startswith("cifar_utils.augmentation."):
        return args[0]
    return layer(*args, **kwargs)
