"""The norms of a network's gradients in one step."""

import math

import keras
import numpy as np
import pandas as pd
from keras import ops

from cifar_utils.data.dataset import Split
from cifar_utils.models.graph import need_graph
from cifar_utils.training.batches import Batches
from cifar_utils.training.callbacks import SeedEpoch


def gradient_norms(
    model: keras.Model, split: Split, *, batch_size: int = 128, seed: int = 0
) -> pd.DataFrame:
    """The norm of each kernel's gradient in a training step. The model keeps its weights.

    Parameters
    ----------
    model
        From inputs to logits.
    split
        Images and labels. The first batch that ``seed`` draws is used, with augmentation and
        dropout on.

    Returns
    -------
    pd.DataFrame
        A row for each trained kernel of a convolution or dense layer, from the input on. The index
        is the ``layer``'s name. ``shape`` is text, ``weights`` their number, and ``norm`` the L2
        norm of the mean loss's gradient, NaN or infinite where the gradient is.

    Raises
    ------
    InputError
        Where ``batch_size`` is below 1, ``seed`` below 0, or the model has no graph.

    """
    need_graph(model)
    batches = Batches(model, split, batch_size, seed)
    optimizer = keras.optimizers.SGD(1.0, momentum=0.9)  # its first momentum is minus the gradient
    # Another model of the same layers, so that the given one stays compiled as it is.
    # A Sequential that was never called has no `input`.
    probe = keras.Model(model.inputs[0], model.outputs[0])
    probe.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=keras.backend.backend() == "jax",
        # TensorFlow would need longer to compile a single step than to run it.
        run_eagerly=keras.backend.backend() == "tensorflow",
    )
    variables = [*probe.trainable_variables, *probe.non_trainable_variables]
    kept = [np.array(ops.convert_to_numpy(variable)) for variable in variables]
    seeds = SeedEpoch(batches, seed)
    seeds.set_model(probe)
    seeds.on_epoch_begin(0)
    try:
        probe.train_on_batch(*batches[0])
    finally:
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)
    rows = [
        {
            "layer": variable.path.rsplit("/")[-2],
            "shape": "×".join(map(str, variable.shape)),
            "weights": math.prod(variable.shape),
            "norm": float(ops.norm(ops.ravel(momentum))),
        }
        for variable, momentum in zip(model.trainable_variables, optimizer.momentums, strict=True)
        if len(variable.shape) > 1
    ]
    return pd.DataFrame(rows).set_index("layer")
