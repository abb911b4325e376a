"""Tuning: a :class:`Study` says what is searched, :func:`tune` searches it."""

from cifar_utils.tuning.search import Search, tune
from cifar_utils.tuning.space import RANGES, Range, parse_space
from cifar_utils.tuning.study import TUNERS, Study, Trial

__all__ = ["RANGES", "TUNERS", "Range", "Search", "Study", "Trial", "parse_space", "tune"]
