"""What holds for the repository as a whole."""

import ast
import fnmatch
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "cifar_utils"
MODULES = sorted(PACKAGE.rglob("*.py"))
# Data flows from left to right, and so do imports.
ARROW = [
    "words", "files", "parameters", "events", "provenance", "backend", "data", "models", "training",
    "evaluation", "tuning", "plots", "augmented", "record", "loaded", "comparison", "reported",
    "leaderboard", "reports", "series_file", "series", "cli",
]  # fmt: skip
# What the command line needs before a run begins: it is to answer at once.
LIGHT = {
    "words", "files", "parameters", "events", "provenance", "data", "record", "loaded",
    "leaderboard", "reports", "series_file", "series", "cli",
}  # fmt: skip


def part(path):
    """The part of the package that a file is of: ``"models"`` for ``models/vgg.py``."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(nodes):
    """The full names that these statements, and those within them, import."""
    for node in (inner for outer in nodes for inner in ast.walk(outer)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def run(code):
    """Run code in an interpreter of its own; return what it prints, on either stream."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_is_short_and_imports_only_to_its_left(path):
    source = path.read_text("utf-8")
    assert source.count("\n") <= 450
    if path == PACKAGE / "__init__.py":
        return
    body = ast.parse(source).body
    left = ARROW[: ARROW.index(part(path)) + 1]
    own = {name.split(".")[1] for name in imports(body) if name.startswith("cifar_utils.")}
    assert own - {"__version__"} <= set(left)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_begins_with_a_backend_and_light_ones_begin_without_keras(path):
    top = [
        node
        for node in ast.parse(path.read_text("utf-8")).body
        if not isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    heavy = {"tensorflow", "jax", "torch"} | ({"keras"} if part(path) in LIGHT else set())
    assert heavy & {name.split(".")[0] for name in imports(top)} == set()


def test_the_command_line_starts_without_keras():
    loaded = run("import sys, cifar_utils.reporting.cli; print(*sys.modules)").split()
    assert "cifar_utils.reporting.cli" in loaded
    assert {"keras", "tensorflow", "jax", "torch", "matplotlib", "sklearn"} & set(loaded) == set()


def test_a_run_is_loaded_without_keras():
    code = "import sys, cifar_utils; cifar_utils.load_run, dir(cifar_utils); print(*sys.modules)"
    loaded = run(code).split()
    assert "cifar_utils.runs.loaded" in loaded
    assert {"keras", "tensorflow", "matplotlib", "sklearn"} & set(loaded) == set()


def test_no_library_chatter_from_import_to_a_trained_model():
    code = """\
import cifar_utils.models
from cifar_utils.data import load_dataset
from cifar_utils.training import fit
data = load_dataset("digits", train_limit=100, test_limit=10)
model = cifar_utils.models.build_model("resnet20", data, augmentation="crop, flip")
fit(model, data.train, data.validation, epochs=1)
"""
    assert run(code) == ""


def test_an_installed_package_has_all_of_its_files():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = [*settings["package-data"]["*"], "*.py", "*.pyc"]
    files = [path.name for path in PACKAGE.rglob("*") if path.is_file()]
    assert [name for name in files if not any(fnmatch.fnmatch(name, p) for p in patterns)] == []
