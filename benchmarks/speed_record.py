"""The time of the speed record: of a training step, or of the whole recipe, in several ways.

It compares ways of the same step (airbench, 2,000 images, forward, backward, Muon) in one run on
one machine: with this project's fast layers, with Keras's own (``build_model(..., fast=False)``)
and, if PyTorch is installed (``uv pip install torch``), in plain PyTorch with bfloat16 autocast and
channels last. In most epochs the whitening's bias is frozen, so the first convolution needs no
gradient of its input; that step is measured. Another line has the step of the first three epochs.
To repeat it, on an idle machine::

    python benchmarks/speed_record.py                    # about two minutes, three with PyTorch
    python benchmarks/speed_record.py --batch 500 --steps 3
    python benchmarks/speed_record.py --whole            # trains twice: 22 minutes and more

It prints for each: seconds a step (the median); images a second; operations a second (those of
convolutions and dense layers, forward and backward) as a share of those in the fastest product of
two matrices, in bfloat16 where the processor has it; and seconds as a multiple of the first line's.
With ``--whole`` it trains on CIFAR-10 by the recipe of ``airbench-cifar10``, with fast layers and
in plain PyTorch (``plain_torch.py``), and prints seconds of training, from images in memory to
trained weights, and accuracy on the test images. Ours also traces the step and keeps a checkpoint
an epoch.
"""

import argparse
import importlib.util
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from cifar_utils.data import Dataset, load_dataset
from cifar_utils.evaluation import evaluate_views
from cifar_utils.reporting.notebooks import project_folder
from cifar_utils.reporting.series_file import read_series


def main() -> None:
    """Print the machine, its peak and a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=2000, help="images a step")
    parser.add_argument("--steps", type=int, default=7, help="steps timed, after two that are not")
    parser.add_argument("--whole", action="store_true", help="train by the whole recipe instead")
    parser.add_argument("--epochs", type=int, default=recipe()["epochs"], help="of --whole")
    parser.add_argument("--limit", type=int, help="images of each split, of --whole")
    options = parser.parse_args()
    from cifar_utils.backend import choose_precision
    from cifar_utils.provenance import describe_environment

    facts = describe_environment(choose_precision("auto"))
    peak = fastest_product(facts["precision"])
    batch = recipe()["batch_size"] if options.whole else options.batch
    print(
        f"{facts['processor']}, {facts['cores']} cores, {facts['backend']} "
        f"{facts['backend_version']}, {facts['precision']}; "
        f"products of matrices: {peak / 1e9:,.0f} GFLOP/s; batches of {batch:,}"
    )
    narrow = ["--bfloat16"] if "bfloat16" in facts["precision"] else []
    if options.whole:
        print_whole(options.epochs, options.limit, narrow)
        return
    print(f"{'':32} {'s a step':>9} {'images/s':>9} {'of peak':>8} {'times':>6}")
    size = options.batch, options.steps
    ways = {
        "fast layers": {},
        "fast layers, bias trained": {"trains_bias": True},
        "Keras's own layers": {"fast": False},
    }
    found = {name: seconds_of_ours(*size, **how) for name, how in ways.items()}
    first, operations = found["fast layers"]
    if importlib.util.find_spec("torch"):
        (seconds,) = run_torch(f"--batch={options.batch}", f"--steps={options.steps}", *narrow)
        found["plain PyTorch"] = seconds, operations
    for name, (seconds, operations) in found.items():
        print(
            f"{name:32} {seconds:9.3f} {options.batch / seconds:9,.0f} "
            f"{operations / seconds / peak:8.2f} {seconds / first:6.2f}"
        )


def print_whole(epochs: int, limit: int | None, narrow: list[str]) -> None:
    """Print seconds of training and test accuracy, for each way."""
    print(f"{f'{epochs} epochs':32} {'seconds':>9} {'accuracy':>9} {'times':>6}")
    seconds, accuracy = whole(epochs, limit)
    print(f"{'fast layers':32} {seconds:9.1f} {accuracy:9.2%} {1:6.2f}", flush=True)
    if importlib.util.find_spec("torch"):
        limited = [f"--limit={limit}"] if limit else []
        again, accuracy = run_torch(f"--whole={epochs}", *limited, *narrow)
        print(f"{'plain PyTorch':32} {again:9.1f} {accuracy:9.2%} {again / seconds:6.2f}")


def timed(step, steps: int) -> float:
    """The median of ``steps`` calls, in seconds, after two that are not counted."""
    taken = []
    for _ in range(steps + 2):
        begun = time.perf_counter()
        step()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken[2:])


def fastest_product(precision: str) -> float:
    """Operations a second of the fastest of some products of square matrices."""
    import tensorflow as tf

    kind = "bfloat16" if "bfloat16" in precision else "float32"
    product = tf.function(lambda a: tf.matmul(a, a))
    return max(
        2 * size**3 / timed(lambda a=a: product(a), 5)
        for size in (512, 1024, 2048, 4096)
        for a in [tf.cast(tf.random.normal((size, size)), kind)]
    )


def images_and_labels(batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Random pixels and classes; a step's time does not depend on them."""
    random = np.random.default_rng(0)
    return random.integers(0, 256, (batch, 32, 32, 3), np.uint8), random.integers(0, 10, batch)


def seconds_of_ours(
    batch: int, steps: int, fast: bool = True, trains_bias: bool = False
) -> tuple[float, float]:
    """Seconds of a step, and its operations."""
    from cifar_utils.backend import keras
    from cifar_utils.models import build_model, summarize
    from cifar_utils.training import make_optimizer

    data = load_dataset("digits")
    augmentation = "crop(2,'reflect'), alternating_flip"
    model = build_model("airbench", data, augmentation=augmentation, fast=fast)
    model.compile(
        make_optimizer("muon", 0.24, 0.11, batch),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    whitening = next(layer for layer in model.layers if hasattr(layer, "begin_epoch"))
    whitening.begin_epoch(0 if trains_bias else whitening.bias_epochs)
    images, labels = images_and_labels(batch)
    seconds = timed(lambda: model.train_on_batch(images, labels), steps)
    facts = summarize(model)
    whitened, first, *_ = facts.layers.operations[facts.layers.operations > 0]
    # Backward: gradients of trained filters, and of inputs unless no layer below needs them.
    operations = 3 * facts.flops - 2 * whitened - (0 if trains_bias else first)
    return seconds, operations * batch


def recipe() -> dict[str, Any]:
    """The parameters of ``airbench-cifar10`` in the series."""
    root = project_folder()
    runs = read_series(root / "notebooks/series.yaml", "cpu", root)
    return next(run.parameters for run in runs if run.name == "airbench-cifar10-s0")


def loaded(limit: int | None) -> Dataset:
    """The images of the recipe; of each split as many as the limit."""
    held_out = recipe()["validation_fraction"]
    limits = {"train_limit": limit, "test_limit": limit}
    return load_dataset("cifar10", validation_fraction=held_out, **limits)


def whole(epochs: int, limit: int | None) -> tuple[float, float]:
    """Train by the recipe; return seconds of training, and accuracy on the test images."""
    from cifar_utils.models import build_model
    from cifar_utils.training import fit

    given, data = recipe(), loaded(limit)
    begun = time.perf_counter()
    model = build_model(given["architecture"], data, augmentation=given["augmentation"])
    same = ("batch_size", "optimizer", "learning_rate", "schedule", "weight_decay")
    settings = {name: given[name] for name in (*same, "label_smoothing")}
    fit(model, data.train, data.validation, epochs=epochs, **settings)
    seconds = time.perf_counter() - begun
    scores = evaluate_views(model, data.test, data.class_names, given["unsure"])
    return seconds, scores[6].top1


def run_torch(*options: str) -> list[float]:
    """The numbers that ``plain_torch.py`` prints."""
    command = [sys.executable, str(Path(__file__).with_name("plain_torch.py")), *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [float(number) for number in done.stdout.split()]


if __name__ == "__main__":
    main()
