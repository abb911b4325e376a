"""The origin of a run: commit, machine and versions by epoch, and the code that took part."""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from cifar_utils import ONEDNN
from cifar_utils.choices import source_file

# The parts of the package that a run's result depends on. A dataset has its own fingerprint.
COMPUTING = tuple(
    f"cifar_utils.{part}" for part in ("augmentation", "backend", "models", "training", "tuning")
)


def describe_environment(precision: str) -> dict[str, Any]:
    """Hardware, software and commit of this process: a record's ``environment``.

    Parameters
    ----------
    precision
        The Keras dtype policy in use: ``"float32"``, ``"mixed_bfloat16"``.

    Returns
    -------
    dict
        ``backend``, ``backend_version``, ``onednn`` (whether TensorFlow uses it: ``"on"``,
        ``"off"`` or ``"default"``), ``keras``, ``python``, ``platform``, ``precision``,
        ``processor``, ``cores`` (how many this process may use), ``accelerators`` (names) and
        ``git``. That is the commit of this package's repository at the first call, with
        ``+changes`` where tracked files differed from it; None without a repository.

    """
    import keras

    backend = keras.backend.backend()
    onednn = {"1": "on", "0": "off"}.get(os.environ.get(ONEDNN, ""), "default")
    return {
        "backend": backend,
        "backend_version": sys.modules[backend].__version__,
        **({"onednn": onednn} if backend == "tensorflow" else {}),
        "keras": keras.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "precision": precision,
        "processor": _processor(),
        "cores": len(usable_cores()),
        "accelerators": _accelerators(backend),
        "git": own_commit(),
    }


def join_stretches(stretches: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Stretches of epochs, in which neighbours of the same environment have become one.

    A stretch is an environment with the ``first`` and the ``last`` epoch (from 1) it computed.
    """
    joined: list[dict[str, Any]] = []
    for row in stretches:
        if joined and _environment(joined[-1]) == _environment(row):
            joined[-1]["last"] = row["last"]
        else:
            joined.append(dict(row))
    return joined


def changes(stretch: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    """How an environment differs from a stretch's: ``"cores 1 instead of 2"``, or nothing."""
    before = _environment(stretch)
    return ", ".join(
        f"{key.replace('_', ' ')} {environment.get(key)} instead of {before.get(key)}"
        for key in dict.fromkeys([*environment, *before])
        if environment.get(key) != before.get(key)
    )


def _environment(stretch: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in stretch.items() if key not in ("first", "last")}


def code_in_use() -> dict[str, str]:
    """A fingerprint of each module in :data:`COMPUTING` that this process has imported, by name.

    Networks, augmentations, optimizers and schedules are imported when they are used, so modules of
    other networks are left out.
    """
    return {name: fingerprint(name) for name in sorted(sys.modules) if name.startswith(COMPUTING)}


def changed_code(recorded: Mapping[str, str]) -> list[str]:
    """The names in a result of :func:`code_in_use` whose code has changed or is gone."""
    return [name for name, digest in recorded.items() if fingerprint(name) != digest]


@cache  # the process keeps the code that it read first
def fingerprint(module: str) -> str:
    """A digest of a module's :func:`bare_code`."""
    file = source_file(module)
    code = bare_code(file.read_text("utf-8") if file else "")
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def bare_code(source: str) -> str:
    """Code without its comments, docstrings and layout, which don't change what it does."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a magic command, or a lambda's lines, which may be part of a statement
        return source
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
        if documented and ast.get_docstring(node):
            node.body[0] = ast.Pass()
    return ast.unparse(tree)


def _output(*command: str) -> str | None:
    """The output of a command, stripped; None if it is not installed, fails or hangs."""
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@cache
def _processor() -> str:
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor()
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


@cache  # the process keeps the code that it read first, whatever is committed later
def own_commit() -> str | None:
    """The commit of this package: see :func:`git_commit`."""
    return git_commit(Path(__file__))


def _accelerators(backend: str) -> list[str]:
    """Names of the devices other than processors that the backend computes on."""
    import keras

    if backend == "torch":  # Keras does not list torch's devices
        cuda = sys.modules["torch"].cuda
        return [cuda.get_device_name(i) for i in range(cuda.device_count())]
    devices = [name for name in keras.distribution.list_devices() if not name.startswith("cpu")]
    # The driver also names GPUs that this process may not use.
    return (gpu_names() if devices else [])[: len(devices)] or devices


def gpu_names() -> list[str]:
    """Names of this machine's NVIDIA GPUs, from the driver."""
    names = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return names.splitlines() if names else []


def usable_cores() -> list[int]:
    """Numbers of the cores that this process may use; outside of Linux, of all cores."""
    on_linux = sys.platform == "linux"
    return sorted(os.sched_getaffinity(0)) if on_linux else [*range(os.cpu_count() or 1)]


def git_commit(file: Path) -> str | None:
    """The commit of a tracked file's repository, or None; ``+changes`` where files differ from it.

    It also says so where git can't tell. Published pages don't count: they are output of the code.
    """
    git = ("git", "-C", str(file.parent))
    # An installed copy may lie in another repository, whose commit says nothing about this package.
    if _output(*git, "ls-files", "--error-unmatch", file.name) is None:
        return None
    commit = _output(*git, "rev-parse", "HEAD")
    code = ("--", ":(top)", ":(top,exclude)reports")
    changes = _output(*git, "status", "--porcelain", "--untracked-files=no", *code)
    return commit + ("+changes" if changes != "" else "") if commit else None


def committed_text(folder: Path, commit: str, file: str) -> str | None:
    """The text of a file, by its path in a folder, at a commit; None where it is not there."""
    return _output("git", "-C", str(folder), "show", f"{commit}:./{file}")
