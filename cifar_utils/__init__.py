"""What the notebooks share: data, models, training, scores, records and pages."""

import importlib
import os

# TensorFlow reads this once, at its first import; without it, it prints processor flags into
# every page. A user's own setting wins.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

__version__ = "0.1.0"

_MODULES = {"load_run": "runs.folder", "compare_runs": "runs.compare"}


def __getattr__(name: str):
    """What is for playing with runs that are done, imported when it is first asked for."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"cifar_utils.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]
