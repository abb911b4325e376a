"""The speed record's step and recipe in plain PyTorch, for ``speed_record.py``, which runs this.

Plain means one process, autocast to bfloat16 where ours computes in it, channels last, and no layer
or kernel of its own. The whitening also computes in bfloat16; ours does not.
"""

import argparse
import time

import numpy as np
import torch
from speed_record import images_and_labels, loaded, recipe, timed
from torch import nn
from torch.nn import functional

from cifar_utils.evaluation import evaluate_views

LAST = torch.channels_last
RECIPE = recipe()


class Airbench(nn.Sequential):
    """The network, from normalized images ``(N, 3, 32, 32)`` to logits."""

    def __init__(self, bfloat16: bool):
        layers, inputs = [nn.Conv2d(3, 24, 2), nn.GELU()], 24
        layers[0].weight.requires_grad = False
        nn.init.zeros_(layers[0].bias)
        for outputs in (64, 256, 256):
            for place in range(2):
                layers.append(nn.Conv2d(inputs, outputs, 3, padding="same", bias=False))
                nn.init.dirac_(layers[-1].weight.data[:inputs])
                layers += [] if place else [nn.MaxPool2d(2)]
                layers += [nn.BatchNorm2d(outputs, eps=1e-12, momentum=0.4), nn.GELU()]
                layers[-2].register_parameter("weight", None)  # it does not scale
                inputs = outputs
        layers += [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(256, 10, bias=False)]
        nn.init.normal_(layers[-1].weight)
        super().__init__(*layers)
        self.bfloat16 = bfloat16
        self.to(memory_format=LAST)

    def forward(self, images):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            return super().forward(images.contiguous(memory_format=LAST)).float() / 256

    def whiten(self, images) -> None:
        """Set the first filters by the patches of normalized images."""
        patches = images.unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 12)
        values, vectors = torch.linalg.eigh((patches.T @ patches / len(patches)).double())
        filters = (vectors / (values + 5e-4).sqrt()).T.flip(0).float().reshape(12, 3, 2, 2)
        self[0].weight.data = torch.cat([filters, -filters]).contiguous(memory_format=LAST)


class Optimizer:
    """Muon for filters, SGD with Nesterov momentum for all else."""

    def __init__(self, network: Airbench, batch: int):
        filters = [layer for layer in [*network][1:] if isinstance(layer, nn.Conv2d)]
        self.momenta = {layer.weight: torch.zeros_like(layer.weight) for layer in filters}
        self.dense = network[-1].weight
        biases = [weight for weight in network.parameters() if weight.ndim == 1]
        groups = [{"params": biases, "factor": 0.22}, {"params": [self.dense], "factor": 2.8}]
        self.sgd = torch.optim.SGD(groups, 0.1, momentum=0.85, nesterov=True)
        self.batch = batch

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Change the weights by their gradients."""
        for weight, momentum in self.momenta.items():
            momentum.mul_(0.6).add_(weight.grad)
            ahead = weight.grad.add(momentum, alpha=0.6)
            weight.mul_(len(weight) ** 0.5 / weight.norm())
            turn = orthogonalize(ahead.reshape(len(ahead), -1)).reshape(weight.shape)
            weight.add_(turn, alpha=-rate)
        self.dense.mul_(1 - rate * RECIPE["weight_decay"])
        for group in self.sgd.param_groups:
            group["lr"] = rate * group["factor"] * self.batch
        self.sgd.step()
        self.sgd.zero_grad(set_to_none=False)
        for weight in self.momenta:
            weight.grad = None


def orthogonalize(matrix):
    """Three steps of Newton-Schulz in bfloat16."""
    x = matrix.bfloat16() / (matrix.norm() + 1e-7)
    x = x.T if matrix.shape[0] > matrix.shape[1] else x
    for _ in range(3):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def cropped(images):
    """Windows of images ``(N, 3, 32, 32)``, padded by two mirrored pixels."""
    rows, columns = torch.randint(0, 5, (2, len(images)))
    padded, cut = functional.pad(images, (2, 2, 2, 2), "reflect"), torch.empty_like(images)
    for row in range(5):
        for column in range(5):
            here = (rows == row) & (columns == column)
            cut[here] = padded[here, :, row : row + 32, column : column + 32]
    return cut


def step(network: Airbench, optimizer: Optimizer, images, labels, rate: float) -> None:
    """One step of training on normalized images."""
    logits = network(cropped(images))
    functional.cross_entropy(logits, labels, label_smoothing=RECIPE["label_smoothing"]).backward()
    optimizer.step(rate)


def normalized(images: np.ndarray, mean, deviation):
    """Images ``(N, 32, 32, 3)`` of bytes as floats ``(N, 3, 32, 32)``."""
    floats = (torch.from_numpy(np.ascontiguousarray(images)).float() - mean) / deviation
    return floats.permute(0, 3, 1, 2).contiguous(memory_format=LAST)


def seconds_of_step(network: Airbench, batch: int, steps: int) -> float:
    """The median, with the whitening's bias frozen."""
    network[0].bias.requires_grad = False
    optimizer, (pixels, labels) = Optimizer(network, batch), images_and_labels(batch)
    labels = torch.from_numpy(labels)

    def one() -> None:
        step(network, optimizer, normalized(pixels, 125, 63), labels, RECIPE["learning_rate"])

    return timed(one, steps)


class Predictor:
    """A trained network, as ``evaluate_views`` takes it."""

    layers = ()  # Keras's, of which it has none

    def __init__(self, network: Airbench, mean, deviation):
        self.network, self.scale = network, (mean, deviation)

    @torch.no_grad()
    def predict(self, images: np.ndarray, batch_size: int, verbose: int) -> np.ndarray:
        """Logits ``(N, 10)`` of images of bytes."""
        parts = np.split(images, range(batch_size, len(images), batch_size))
        return torch.cat([self.network(normalized(part, *self.scale)) for part in parts]).numpy()


def whole(network: Airbench, epochs: int, limit: int | None) -> tuple[float, float]:
    """Train by the recipe; return seconds of training, and accuracy on the test images."""
    data, batch = loaded(limit), RECIPE["batch_size"]
    begun = time.perf_counter()
    deviation, mean = torch.std_mean(torch.from_numpy(data.train.images).float(), (0, 1, 2))
    images, labels = normalized(data.train.images, mean, deviation), data.train.labels
    labels = torch.from_numpy(labels.astype(np.int64))
    network.whiten(images[:5000])
    optimizer = Optimizer(network, batch)
    total, done = epochs * -(-len(labels) // batch), 0
    first = torch.rand(len(labels)) < 0.5  # mirrored in even epochs, the others in odd ones
    for epoch in range(epochs):
        network[0].bias.requires_grad = epoch < 3
        if epoch == 3:  # then only momentum still moves it
            network[0].bias.grad = torch.zeros_like(network[0].bias)
        for chosen in torch.randperm(len(labels)).split(batch):
            some, mirrored = images[chosen], first[chosen] ^ bool(epoch % 2)
            some = torch.where(mirrored[:, None, None, None], some.flip(3), some)
            rate = RECIPE["learning_rate"] * (1 - done / total)
            step(network, optimizer, some, labels[chosen], rate)
            done += 1
    seconds = time.perf_counter() - begun
    network.eval()
    predictor = Predictor(network, mean, deviation)
    return seconds, evaluate_views(predictor, data.test, data.class_names, RECIPE["unsure"])[6].top1


def main() -> None:
    """Print the seconds of a step, or of the whole recipe with its accuracy."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--whole", type=int, metavar="EPOCHS")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--bfloat16", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    network = Airbench(options.bfloat16)
    if options.whole:
        print(*whole(network, options.whole, options.limit))
    else:
        print(seconds_of_step(network, options.batch, options.steps))


if __name__ == "__main__":
    main()
