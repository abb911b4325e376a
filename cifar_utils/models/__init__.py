"""Networks by name, and :func:`build_model`, which makes one a model from raw images to logits."""

from cifar_utils.augmentation import AUGMENTATIONS
from cifar_utils.models.build import ARCHITECTURES, NORMALIZATIONS, build_model, network_source
from cifar_utils.models.fast import accelerate, to_plain
from cifar_utils.models.summary import ModelSummary, summarize
from cifar_utils.models.transfer import build_transfer_model, extract_features

__all__ = [
    "ARCHITECTURES",
    "AUGMENTATIONS",
    "NORMALIZATIONS",
    "ModelSummary",
    "accelerate",
    "build_model",
    "build_transfer_model",
    "extract_features",
    "network_source",
    "summarize",
    "to_plain",
]
