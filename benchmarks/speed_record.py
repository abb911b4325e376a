"""The time of a training step of the speed record, with and without its fast parts.

It compares ways of the same step (airbench, 2,000 images, forward, backward, Muon) in one run on
one machine: with this project's fast layers, with Keras's own (``build_model(..., fast=False)``)
and, if PyTorch is installed (``uv pip install torch``), in plain PyTorch with bfloat16 autocast and
channels last. In most epochs the whitening's bias is frozen, so the first convolution needs no
gradient of its input; that step is measured. Another line has the step of the first three epochs.
To repeat it, on an idle machine::

    python benchmarks/speed_record.py                    # about two minutes, three with PyTorch
    python benchmarks/speed_record.py --batch 500 --steps 3

It prints for each: seconds a step (the median); images a second; operations a second (those of
convolutions and dense layers, forward and backward) as a share of those in the fastest product of
two matrices, in bfloat16 where the processor has it; and seconds as a multiple of the first line's.
"""

import argparse
import importlib.util
import statistics
import subprocess
import sys
import time

import numpy as np


def main() -> None:
    """Print the machine, its peak and a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=2000, help="images a step")
    parser.add_argument("--steps", type=int, default=7, help="steps timed, after two that are not")
    parser.add_argument("--torch", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.torch:
        print(seconds_of_torch(options.batch, options.steps))
        return

    from cifar_utils.backend import choose_precision
    from cifar_utils.provenance import describe_environment

    facts = describe_environment(choose_precision("auto"))
    peak = fastest_product(facts["precision"])
    print(
        f"{facts['processor']}, {facts['cores']} cores, {facts['backend']} "
        f"{facts['backend_version']}, {facts['precision']}; "
        f"products of matrices: {peak / 1e9:,.0f} GFLOP/s; batches of {options.batch:,}"
    )
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
        command = [sys.executable, __file__, "--torch", f"--batch={options.batch}"]
        done = subprocess.run(
            [*command, f"--steps={options.steps}"], capture_output=True, text=True, check=True
        )
        found["plain PyTorch"] = float(done.stdout), operations
    for name, (seconds, operations) in found.items():
        print(
            f"{name:32} {seconds:9.3f} {options.batch / seconds:9,.0f} "
            f"{operations / seconds / peak:8.2f} {seconds / first:6.2f}"
        )


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
    from cifar_utils.data import load_dataset
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


def seconds_of_torch(batch: int, steps: int) -> float:
    """Seconds of the same step in plain PyTorch: bfloat16 autocast, channels last."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Pair(nn.Sequential):
        def __init__(self, inputs, outputs):
            layers = []
            for place, channels in enumerate((inputs, outputs)):
                layers.append(nn.Conv2d(channels, outputs, 3, padding="same", bias=False))
                layers += [] if place else [nn.MaxPool2d(2)]
                layers += [nn.BatchNorm2d(outputs, eps=1e-12, momentum=0.4), nn.GELU()]
                layers[-2].weight.requires_grad = False
            super().__init__(*layers)

    def orthogonalize(matrix):
        x = matrix.bfloat16() / (matrix.norm() + 1e-7)
        x = x.T if matrix.shape[0] > matrix.shape[1] else x
        for _ in range(3):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        return x.T if matrix.shape[0] > matrix.shape[1] else x

    whitening = nn.Conv2d(3, 24, 2)
    whitening.requires_grad_(False)
    body = nn.Sequential(
        whitening, nn.GELU(), Pair(24, 64), Pair(64, 256), Pair(256, 256),
        nn.MaxPool2d(3), nn.Flatten(), nn.Linear(256, 10, bias=False),
    ).to(memory_format=torch.channels_last)  # fmt: skip
    trained = [weight for weight in body.parameters() if weight.requires_grad]
    filters = [weight for weight in trained if weight.ndim == 4]
    rest = torch.optim.SGD(
        [weight for weight in trained if weight.ndim != 4], 0.1, momentum=0.85, nesterov=True
    )
    momenta = [torch.zeros_like(weight) for weight in filters]
    pixels, classes = images_and_labels(batch)
    pixels = (
        torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    )
    labels = torch.from_numpy(classes)

    def step():
        images = (pixels.float() - 125) / 63
        rows, columns = torch.randint(0, 5, (2, batch))
        padded = functional.pad(images, (2, 2, 2, 2), "reflect")
        cut = torch.empty_like(images)
        for row in range(5):
            for column in range(5):
                here = (rows == row) & (columns == column)
                cut[here] = padded[here, :, row : row + 32, column : column + 32]
        with torch.autocast("cpu", torch.bfloat16):
            logits = body(cut.contiguous(memory_format=torch.channels_last)).float() / 256
        functional.cross_entropy(logits, labels, label_smoothing=0.2).backward()
        with torch.no_grad():
            for weight, momentum in zip(filters, momenta, strict=True):
                momentum.mul_(0.6).add_(weight.grad)
                ahead = weight.grad.add(momentum, alpha=0.6)
                weight.mul_(len(weight) ** 0.5 / weight.norm())
                turn = orthogonalize(ahead.reshape(len(ahead), -1)).reshape(weight.shape)
                weight.add_(turn, alpha=-0.24)
        rest.step()
        body.zero_grad()

    return timed(step, steps)


if __name__ == "__main__":
    main()
