"""The code that the notebooks share: data, models, training, scores, records and pages."""

import importlib
import os
import sys
import warnings

# TensorFlow reads these at its first import. A user's own settings win.
# Without this one, TensorFlow prints processor flags into every page.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# By default TensorFlow uses oneDNN only on x86 with AVX-512 VNNI or AMX. With AVX2 alone, oneDNN
# makes a step 1.6 to 3.6 times as fast (ResNet-20 at batch 128, CifarNet at batch 32).
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
if "tensorflow" not in sys.modules:
    os.environ.setdefault(ONEDNN, "1")
elif ONEDNN not in os.environ:
    warnings.warn(
        "TensorFlow was imported before cifar_utils, so it may compute without oneDNN: more slowly "
        f"and with other last digits; import cifar_utils first, or set {ONEDNN}=1",
        stacklevel=2,
    )

__version__ = "0.1.0"


def later(package: str, modules: dict[str, str]):
    """A package's ``__getattr__``, which imports a name when it is used.

    ``modules`` maps a module of the package to its names, separated by spaces.
    """
    homes = {name: module for module, names in modules.items() for name in names.split()}

    def __getattr__(name: str):
        if name in homes:
            return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return __getattr__


# For work with finished runs.
__getattr__ = later(__name__, {"runs.folder": "load_run", "runs.compare": "compare_runs"})
