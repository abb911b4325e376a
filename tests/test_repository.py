"""What holds for the repository as a whole."""

import fnmatch
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "cifar_utils"
MODULES = sorted(PACKAGE.rglob("*.py"))


def run(code):
    """Run code in an interpreter of its own; return what it prints, on either stream."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_command_line_and_a_run_are_loaded_without_keras():
    code = """\
import sys, cifar_utils, cifar_utils.reporting.cli
cifar_utils.load_run, dir(cifar_utils)
print(*sys.modules)"""
    loaded = run(code).split()
    assert {"cifar_utils.reporting.cli", "cifar_utils.runs.folder"} < set(loaded)
    heavy = {"keras", "tensorflow", "jax", "torch", "matplotlib", "sklearn", "pandas", "papermill"}
    assert heavy & set(loaded) == set()


def test_a_model_is_trained_without_a_word_and_without_what_makes_pages():
    code = """\
import sys
from cifar_utils.backend import keras
before = set(sys.modules)  # Keras itself imports pandas and rich
import cifar_utils.models
from cifar_utils.data import load_dataset
from cifar_utils.training import fit
data = load_dataset("digits", train_limit=100, test_limit=10)
network = lambda x, classes: keras.layers.Dense(classes)(keras.layers.Flatten()(x))
model = cifar_utils.models.build_model(network, data, augmentation="crop, flip")
fit(model, data.train, data.validation, epochs=1)
print(*set(sys.modules) - before)"""
    (line,) = run(code).splitlines()
    assert "cifar_utils.models.build" in line.split()
    heavy = {"papermill", "nbconvert", "distributed", "click", "rich", "pandas", "seaborn"}
    assert heavy & set(line.split()) == set()


def test_an_installed_package_has_all_of_its_files():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = [*settings["package-data"]["*"], "*.py", "*.pyc"]
    files = [path.name for path in PACKAGE.rglob("*") if path.is_file()]
    assert [name for name in files if not any(fnmatch.fnmatch(name, p) for p in patterns)] == []


def test_the_environment_is_asked_for_in_the_same_words_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    fits = SpecifierSet(project["requires-python"])
    (made,) = re.findall(r"^FITS := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert SpecifierSet(made) == fits
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (python,) = (each for each in conda if str(each).startswith("python="))
    assert python.partition("=")[2] + ".9" in fits
    (pip,) = (each["pip"] for each in conda if isinstance(each, dict))
    assert pip[0] == "--constraint constraints.txt"
    extras = re.search(r"\[(.+)\]", pip[1])[1].split(",")
    assert set(extras) <= project["optional-dependencies"].keys()
