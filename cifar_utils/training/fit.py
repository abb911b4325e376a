"""Training: :func:`fit`, which can be killed at any moment and started again."""

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cifar_utils.choices import parse_call
from cifar_utils.data.dataset import Split
from cifar_utils.errors import TrainingDiverged, check_bounds, check_count, need_validation
from cifar_utils.events import show_note
from cifar_utils.files import made_folder
from cifar_utils.models.graph import NO_CONFIG, at_once, layers_of, need_graph
from cifar_utils.provenance import bare_code, code_in_use, describe_environment
from cifar_utils.text import slug
from cifar_utils.training.batches import Batches, InOrder, check_labels
from cifar_utils.training.callbacks import Checkpoint, Progress, SeedEpoch
from cifar_utils.training.history import History, StoppingRule, best_epoch
from cifar_utils.training.optimizers import make_optimizer
from cifar_utils.training.schedules import Plateau

# Where a configuration names the places of tensors in the graph.
GRAPH = ("keras_history", "input_layers", "output_layers")


def fit(
    model: keras.Model,
    train: Split,
    validation: Split,
    *,
    epochs: int,
    batch_size: int = 128,
    optimizer: str = "sgd",
    learning_rate: float = 0.01,
    schedule: str = "constant",
    weight_decay: float = 0.0,
    label_smoothing: float = 0.0,
    target_accuracy: float | None = None,
    patience: int | None = None,
    seed: int = 0,
    until: int | None = None,
    output: Path | str | None = None,
    trial: str = "",
    plot: Callable[[History], Any] | None = None,
) -> History:
    """Train a model from inputs to logits; leave it with its best epoch's weights, by validation.

    Without validation images, it keeps the last epoch's weights.

    The same call on the same processor, with as many cores, the same versions and commit gives the
    same weights to the bit, whether or not it was interrupted. (On a GPU, TensorFlow adds gradients
    up in any order.) A run that resumes under other conditions says so, and
    :attr:`~cifar_utils.training.History.trained_by` lists them. It must resume with the same
    precision and backend and, if the network is your own function, with the same code of it.

    Parameters
    ----------
    train
        Its images may have an additional second axis: the variants of an image, of which each epoch
        draws one.
    optimizer, learning_rate, weight_decay
        See :func:`~cifar_utils.training.make_optimizer`.
    schedule
        A name in :data:`~cifar_utils.choices.REGISTRIES`, with or without options:
        ``"step(every=10)"``.
    label_smoothing
        The share of each label that goes to all classes alike (Szegedy et al., arXiv:1512.00567).
        Losses of training and of validation include it.
    target_accuracy, patience
        Training ends after the first epoch whose validation accuracy is at least
        ``target_accuracy``, a fraction, or after ``patience`` epochs without a better one.
    until
        The epoch to stop after for now. The schedule is still that of all ``epochs``. A later call
        with a greater ``until``, or None, resumes the run in ``output``.
    output
        A run's folder. Each epoch leaves a checkpoint in it, and a run found there resumes.
        ``None`` keeps nothing.
    trial
        The name of this training, if the run has several.
    plot
        A function that makes a figure of the history so far, such as
        :func:`~cifar_utils.plots.plot_history`. In a notebook that a person watches, the figure
        stands below the cell while the model trains.

    Raises
    ------
    InputError
        Where an argument is out of range or unknown, the model has no graph of layers, or
        ``output`` holds a run of other settings.
    TrainingDiverged
        Where the loss is no longer a number. The model then has the weights with which this call
        began to train.

    """
    need_graph(model)
    epochs = check_count("epochs", epochs)
    until = check_count(
        "until", epochs if until is None else until, f"at least 1, at most {epochs}"
    )
    learning_rate = check_bounds("learning_rate", learning_rate, "above 0")
    weight_decay = check_bounds("weight_decay", weight_decay, "at least 0")
    label_smoothing = check_bounds("label_smoothing", label_smoothing, "at least 0, below 1")
    rule = StoppingRule(target_accuracy, patience)
    if rule:
        name = "patience" if target_accuracy is None else "target_accuracy"
        need_validation(name, len(validation.labels))
    for split in (train, validation):
        check_labels(split, model.output_shape[-1])
    batches = Batches(model, train, batch_size, seed)
    settings = {
        "epochs": epochs, "batch_size": batches.batch_size, "seed": batches.seed,
        "optimizer": optimizer, "learning_rate": learning_rate, "schedule": schedule,
        "weight_decay": weight_decay, "label_smoothing": label_smoothing,
        "target_accuracy": rule.target_accuracy, "patience": rule.patience,
        "precision": model.dtype_policy.name, "backend": keras.backend.backend(),
        "network": _network_digest(model), "images": _images_digest(train, validation),
    }  # fmt: skip
    rate = parse_call("schedule", schedule)(learning_rate, len(batches), epochs)
    plateau = rate if isinstance(rate, Plateau) else None
    if plateau:
        need_validation(f"schedule {schedule!r}", len(validation.labels))
        rate = plateau.peak
    metrics = [keras.metrics.SparseCategoricalAccuracy("accuracy")]
    if model.output_shape[-1] > 5:
        metrics.append(keras.metrics.SparseTopKCategoricalAccuracy(5, "top5"))
    model.compile(
        make_optimizer(optimizer, rate, weight_decay, min(batch_size, len(train.labels)), model),
        loss=crossentropy(label_smoothing),
        metrics=metrics,
        # In TensorFlow on a CPU, XLA makes a step slower. JAX needs it.
        jit_compile=keras.backend.backend() == "jax",
    )
    model.optimizer.build(model.trainable_variables)
    with tempfile.TemporaryDirectory() as scratch:
        folder = made_folder(Path(output or scratch) / "checkpoint" / slug(trial))
        environment = describe_environment(model.dtype_policy.name)
        checkpoint = Checkpoint(folder, settings, environment)
        checkpoint.set_model(model)
        line = checkpoint.restore()
        done = len(checkpoint.epochs)
        code = code_in_use()  # now, because a file may change while the model trains

        def history(rows: list[dict]) -> History:
            best = best_epoch(rows) if rows else 0
            return History(rows, best, len(batches), rule, until, checkpoint.trained_by, code)

        def draw(rows: list[dict]) -> str:
            return plot(history(rows))._repr_html_()

        if done < until and not rule.reason(checkpoint.epochs):
            if line:
                show_note(output, line)
            start = model.get_weights()
            held_out = None
            if len(validation.labels):
                held_out = InOrder(validation, at_once(model, validation.images))
            callbacks = [
                SeedEpoch(batches, seed),
                Progress(batches, until, checkpoint.epochs, output, rule, trial, plot and draw),
                checkpoint,
            ]
            if plateau:  # last: an epoch's row holds the rate that it was trained at
                plateau.rows = checkpoint.epochs
                callbacks.append(plateau)
            try:
                with _gradients_forgotten():
                    model.fit(
                        batches, validation_data=held_out, initial_epoch=done, epochs=until,
                        shuffle=False,  # Keras would shuffle batches by its own state
                        verbose=0, callbacks=callbacks,
                    )  # fmt: skip
            except BaseException as error:
                diverged = isinstance(error, TrainingDiverged)
                if diverged:
                    error.history = history(checkpoint.epochs)
                if diverged or not (output and (folder / "state.json").exists()):
                    model.set_weights(start)  # for a call that begins again
                raise
        kept = history(checkpoint.epochs)
        checkpoint.load(kept.best_epoch)
    return kept


def crossentropy(label_smoothing: float):
    """The loss of logits ``(N, K)`` for labels ``(N,)``, with smoothed labels where asked for."""
    if not label_smoothing:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def crossentropy(labels, logits):
        # Keras smooths one-hot labels alone.
        labels = keras.ops.one_hot(keras.ops.reshape(labels, (-1,)), logits.shape[-1])
        return keras.losses.categorical_crossentropy(
            labels, logits, from_logits=True, label_smoothing=label_smoothing
        )

    return crossentropy


@contextmanager
def _gradients_forgotten() -> Iterator[None]:
    """Make TensorFlow forget the custom gradients that the block registers.

    It would keep each for ever, and with it the graph of the whole step. Each step has one: Keras
    adds up gradients over replicas. No public function removes it.
    """
    registered = {}
    if keras.backend.backend() == "tensorflow":
        from tensorflow.python.framework import ops

        registered = getattr(ops.gradient_registry, "_registry", {})
    before = set(registered)
    try:
        yield
    finally:
        for name in set(registered) - before:
            if name.startswith("CustomGradient-"):
                del registered[name]


def _network_digest(model: keras.Model) -> str:
    """A digest of a network without its weights.

    The layers of a reader's own network may have any code, so its source is in it.
    """
    try:
        config = _unnamed(model.get_config(), {})
    except NO_CONFIG:
        config = [_own_config(layer) for layer in layers_of(model)]
    shapes = [weight.shape for weight in model.weights]
    place = re.compile(" at 0x[0-9a-f]+")  # of an object in memory
    told = json.dumps([config, shapes], default=lambda x: place.sub("", str(x)), sort_keys=True)
    digest = hashlib.sha256(told.encode())
    if getattr(model, "own", False):
        digest.update(bare_code(model.source).encode())
    return digest.hexdigest()[:12]


def _images_digest(*splits: Split) -> str:
    """A digest of labels and first images."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(split.labels.astype("<i8"))
        digest.update(np.ascontiguousarray(split.images[:1]))
    return digest.hexdigest()[:12]


def _own_config(layer: keras.Layer) -> Any:
    try:
        return _unnamed(layer.get_config(), {})
    except NO_CONFIG:
        return type(layer).__name__


def _unnamed(config: Any, places: dict[str, int], key: str = "") -> Any:
    """A configuration without names, and without the compilation and building of inner models.

    Keras's names count all layers of a process. Where a graph refers to an operation, its place
    replaces its name.
    """
    if key in ("name", "compile_config", "build_config"):
        return None
    if isinstance(config, dict) and config.get("class_name") == "__lambda__":
        return "lambda"  # its compiled code names the kernel's process
    if isinstance(config, dict) and key != "dtype":  # a precision keeps its name
        if "input_layers" in config:  # a model with a graph
            places = {row["name"]: place for place, row in enumerate(config["layers"])}
        inner = key if key in GRAPH else ""  # inputs and outputs may have names of their own
        return {name: _unnamed(value, places, inner or name) for name, value in config.items()}
    if isinstance(config, list | tuple):
        inner = key if key in GRAPH else ""
        return [_unnamed(value, places, inner) for value in config]
    return places.get(config, config) if key in GRAPH else config
