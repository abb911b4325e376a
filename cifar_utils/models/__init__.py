"""Networks by name, and :func:`build_model`, which makes a model of one."""

from cifar_utils import later
from cifar_utils.models.build import build_model, network_source
from cifar_utils.models.fast import accelerate
from cifar_utils.models.plain import to_plain
from cifar_utils.models.summary import ModelSummary, summarize

__getattr__ = later(__name__, {"transfer": "build_transfer_model extract_features"})
