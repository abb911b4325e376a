"""The origin of a run: commit, machine and versions by epoch, and the code that took part."""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from cifar_utils.choices import source_file

PACKAGE = "cifar_utils"
# The other parts of the package show a run and don't change its result.
COMPUTING = ("augmentation", "backend", "data", "models", "training", "tuning")


def describe_environment(precision: str) -> dict[str, Any]:
    """Hardware, software and commit of this process: a record's ``environment``.

    Parameters
    ----------
    precision
        The Keras dtype policy in use: ``"float32"``, ``"mixed_bfloat16"``.

    Returns
    -------
    dict
        ``backend``, ``backend_version``, ``keras``, ``python``, ``platform``, ``precision``,
        ``processor``, ``cores`` (how many this process may use), ``accelerators`` (names) and
        ``git``. That is the commit of this package's repository at the first call, with
        ``+changes`` where tracked files differed from it; None without a repository.

    """
    import keras

    backend = keras.backend.backend()
    return {
        "backend": backend,
        "backend_version": sys.modules[backend].__version__,
        "keras": keras.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "precision": precision,
        "processor": _processor(),
        "cores": len(usable_cores()),
        "accelerators": _accelerators(backend),
        "git": own_commit(),
    }


def with_epoch(
    stretches: Sequence[Mapping[str, Any]], epoch: int, environment: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Add an epoch to the end of stretches of epochs.

    A stretch is an environment with the ``first`` and the ``last`` epoch (from 1) it computed.
    """
    *before, last = stretches or [{}]
    if last and _environment(last) == environment:
        return [*map(dict, before), {**last, "last": epoch}]
    return [*map(dict, stretches), {"first": epoch, "last": epoch, **environment}]


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


def code_of(functions: Iterable[Callable]) -> dict[str, str]:
    """A fingerprint of the code that each function of this package runs, by the function's name.

    It covers the function and all definitions that it reaches by name in the modules that compute
    (:data:`COMPUTING`), without comments and docstrings. A function that a run names in text, such
    as its schedule, is not reached: pass it, too. Functions of other packages are left out.
    """
    names = {f"{function.__module__}.{function.__qualname__}" for function in functions}
    return {name: _fingerprint(name) for name in sorted(names) if name.partition(".")[0] == PACKAGE}


def changed_code(recorded: Mapping[str, str]) -> list[str]:
    """The names in a result of :func:`code_of` whose code has changed or is gone."""
    return [name for name, digest in recorded.items() if _fingerprint(name) != digest]


def _fingerprint(name: str) -> str:
    module, _, definition = name.rpartition(".")
    reached: dict[tuple[str, str], str] = {}
    _reach(module, definition, reached)
    text = "\n".join(f"{'.'.join(place)}: {code}" for place, code in sorted(reached.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _reach(module: str, name: str, reached: dict[tuple[str, str], str]) -> None:
    """Add the code of a definition, and of all definitions that it names, to ``reached``."""
    part = module.partition(".")[2].partition(".")[0]
    if (module, name) in reached or part not in COMPUTING:
        return
    definitions, imported = _read_module(module)
    if name in imported:
        _reach(*imported[name], reached)
    elif source_file(f"{module}.{name}"):  # a module: "from cifar_utils.models import fast"
        for each in _read_module(f"{module}.{name}")[0]:
            _reach(f"{module}.{name}", each, reached)
    elif name in definitions:
        code, used = definitions[name]
        reached[module, name] = code
        for each in used:
            _reach(module, each, reached)


Definitions = dict[str, tuple[str, set[str]]]  # by name: code, and the names that it uses
Imports = dict[str, tuple[str, str]]  # by name: the module that it is imported from, its name there


@cache  # the process keeps the code that it read first
def _read_module(name: str) -> tuple[Definitions, Imports]:
    """A module's definitions without their docstrings, and its imports from this package."""
    file = source_file(name)
    tree = ast.parse(file.read_text("utf-8") if file else "")
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(PACKAGE):
            imported |= {each.asname or each.name: (node.module, each.name) for each in node.names}
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            node.body[0] = ast.Pass()
    definitions: Definitions = {}
    for node in tree.body:
        code = ast.unparse(node)
        used = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined = [node.name]
        else:
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            below = [each for target in filter(None, targets) for each in ast.walk(target)]
            defined = [each.id for each in below if isinstance(each, ast.Name)]
        for name in defined:  # there may be several assignments: a table that grows
            before = definitions.get(name, ("", set()))
            definitions[name] = f"{before[0]}\n{code}", before[1] | used
    return definitions, imported


def _output(*command: str) -> str | None:
    """The output of a command, stripped; None if it is not installed, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
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

    Published pages don't count: they are output of the code.
    """
    git = ("git", "-C", str(file.parent))
    # An installed copy may lie in another repository, whose commit says nothing about this package.
    if _output(*git, "ls-files", "--error-unmatch", file.name) is None:
        return None
    commit = _output(*git, "rev-parse", "HEAD")
    code = ("--", ":(top)", ":(top,exclude)reports")
    changes = _output(*git, "status", "--porcelain", "--untracked-files=no", *code)
    return commit + ("+changes" if changes else "") if commit else None
