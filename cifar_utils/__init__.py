"""The code that the notebooks share: data, models, training, scores, records and pages."""

import importlib
import os

# TensorFlow reads this at its first import. Without it, TensorFlow prints processor flags into
# every page. A user's own setting wins.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

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
