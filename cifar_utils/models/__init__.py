"""Networks by name, and :func:`build_model`, which makes one a model from raw images to logits."""

from cifar_utils.augmentation import AUGMENTATIONS
from cifar_utils.models.build import ARCHITECTURES, NORMALIZATIONS, build_model
from cifar_utils.models.summary import ModelSummary, summarize
from cifar_utils.models.transfer import build_transfer_model, extract_features

__all__ = [
    "ARCHITECTURES",
    "AUGMENTATIONS",
    "NORMALIZATIONS",
    "ModelSummary",
    "build_model",
    "build_transfer_model",
    "extract_features",
    "summarize",
]
