"""What the notebooks share: data, models, training, scores, records and pages."""

import os

# TensorFlow reads this once, at its first import; without it, it prints processor flags into
# every page. A user's own setting wins.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

__version__ = "0.1.0"
