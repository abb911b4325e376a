"""The time that augmentation adds to a training step of ResNet-20, for each kind and for all.

The step is of 128 images of 32 × 32 pixels: forward, backward, SGD with momentum, in bfloat16 where
that is fast. An augmentation's time is that of its layer on a batch, compiled as in training, or
of its change to the batch. Another thread makes the batches; the time that overlaps with the step
is counted in full. For all augmentations, steps with and without them are compared. To repeat it::

    python benchmarks/augmentation.py                    # a minute or two
    python benchmarks/augmentation.py --batch 500 --rounds 20

All are timed in turn, round after round, so other programs slow all of them alike. It prints
milliseconds (medians over the rounds) and their share of the step without augmentation.
"""

import argparse
import statistics
import time

import numpy as np

ONE_BY_ONE = (
    "affine(30)", "alternating_flip", "colour_jitter", "contrast", "crop(4)", "cutout(8)", "flip",
    "flip('vertical')", "rotation(30)",
)  # fmt: skip


def main() -> None:
    """Print the machine, then a line for each augmentation and for all together."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=128, help="images a step")
    parser.add_argument("--rounds", type=int, default=40, help="times that each is timed")
    options = parser.parse_args()

    from cifar_utils.augmentation import augmentation_layers
    from cifar_utils.backend import choose_precision
    from cifar_utils.provenance import describe_environment

    facts = describe_environment(choose_precision("auto"))
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (options.batch, 32, 32, 3), np.uint8)
    labels = random.integers(0, 10, options.batch)
    everything = ", ".join(ONE_BY_ONE)
    timed = {text: augmentation(text, images) for text in ("none", *ONE_BY_ONE)}
    timed["step"] = step(None, images, labels)
    timed["step with all"] = step(everything, images, labels)
    seconds = {text: [] for text in timed}
    for _ in range(options.rounds):
        for text, call in timed.items():
            begun = time.perf_counter()
            call()
            seconds[text].append(time.perf_counter() - begun)
    median = {text: 1000 * statistics.median(taken) for text, taken in seconds.items()}

    print(
        f"{facts['processor']}, {facts['cores']} cores, {facts['backend']} "
        f"{facts['backend_version']}, {facts['precision']}; batches of {options.batch:,}; "
        f"a step of ResNet-20: {median['step']:.1f} ms"
    )
    print(f"{'':32} {'ms':>7} {'of a step':>10}")
    added = {text: median[text] - median["none"] for text in ONE_BY_ONE}
    for text in ONE_BY_ONE:
        if hasattr(augmentation_layers(text)[0], "change"):  # it has no cast of its own
            added[text] = median[text]
    added["sum of these"] = sum(added.values())
    added["all together, in whole steps"] = statistics.median(
        1000 * (b - a) for a, b in zip(seconds["step"], seconds["step with all"], strict=True)
    )
    for text, taken in added.items():
        print(f"{text:32} {taken:7.2f} {taken / median['step']:10.1%}")


def augmentation(text: str, images: np.ndarray):
    """A call that augments the batch: by its layers, compiled, or by its change to the batch."""
    import tensorflow as tf

    from cifar_utils.augmentation import augmentation_layers

    tf.get_logger().setLevel("ERROR")  # it warns of many functions of one name
    layers, batch = augmentation_layers(text), tf.constant(images)
    if layers and hasattr(layers[0], "change"):
        return lambda: changed(layers, images)

    @tf.function
    def call():
        x = batch
        for layer in layers:
            x = layer(x, training=True)
        return tf.cast(x, "float32")

    call()
    return call


def changed(layers, images):
    """The images after all changes that come before the model."""
    for layer in layers:
        if hasattr(layer, "change"):
            images = layer.change(images, np.arange(len(images)), 0, 0)
    return images


def step(text: str | None, images: np.ndarray, labels: np.ndarray):
    """A call that makes a training step, including changes of the batch."""
    from cifar_utils.backend import keras
    from cifar_utils.data import load_dataset
    from cifar_utils.models import build_model
    from cifar_utils.training import make_optimizer

    model = build_model("resnet20", load_dataset("digits"), augmentation=text)
    model.compile(
        make_optimizer("sgd(momentum=0.9)", 0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )

    def call():
        model.train_on_batch(changed(model.layers, images), labels)

    call()
    return call


if __name__ == "__main__":
    main()
