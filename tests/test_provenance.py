"""What computed a run is told by epoch, and its code is known again."""

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cifar_utils
from cifar_utils.models import build_model
from cifar_utils.models.vgg import vgg19
from cifar_utils.provenance import changes, code_of, describe_environment, git_commit, with_epoch
from cifar_utils.training import fit
from cifar_utils.training.schedules import cosine

ONE, OTHER = {"cores": 2, "git": "abc"}, {"cores": 1, "git": "abc"}


@given(st.lists(st.sampled_from([ONE, OTHER])))
def test_stretches_cover_each_epoch_once_with_what_computed_it(environments):
    stretches = []
    for epoch, environment in enumerate(environments, 1):
        stretches = with_epoch(stretches, epoch, environment)
    told = [
        {"cores": row["cores"], "git": row["git"]}
        for row in stretches
        for _ in range(row["first"], row["last"] + 1)
    ]
    assert told == environments
    assert all(one["cores"] != later["cores"] for one, later in pairwise(stretches))


def test_what_differs_is_told_with_both_values():
    stretches = with_epoch([], 1, ONE)
    assert changes(stretches[-1], ONE) == ""
    assert changes(stretches[-1], OTHER) == "cores 1 instead of 2"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package, and what tells whose code there is another than a run noted."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(Path(cifar_utils.__file__).parent, folder / "cifar_utils")
    recorded = code_of([build_model, vgg19, fit, cosine, json.dumps])
    # Functions of other packages are left out.
    assert {name.rpartition(".")[2] for name in recorded} == {
        "build_model", "vgg19", "fit", "cosine",
    }  # fmt: skip
    script = (
        f"import json, cifar_utils.provenance as p; print(json.dumps(p.changed_code({recorded})))"
    )

    def changed():
        environment = os.environ | {"PYTHONPATH": str(folder)}
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, check=True)
        return [name.rpartition(".")[2] for name in json.loads(done.stdout)]

    assert changed() == []
    return folder, changed


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("models/vgg.py", "layers.MaxPooling2D(2,", "layers.AveragePooling2D(2,", ["vgg19"]),
        ("models/blocks.py", "momentum=0.9", "momentum=0.8", ["vgg19"]),
        ("training/schedules.py", "rising = math.floor(", "rising = math.ceil(", ["cosine"]),
        ("training/batches.py", "random.permutation(", "random.choice(", ["fit"]),
        ("backend.py", "capability >= 8", "capability >= 9", ["build_model", "fit"]),
        ("training/schedules.py", "def constant(", "def mine():\n    pass\n\ndef constant(", []),
        ("plots/figure.py", "WIDTH = ", "WIDTH = 1 + ", []),
        ("models/vgg.py", '"""VGG-19', '"""The VGG-19', []),
        ("models/vgg.py", "    for _ in range(2):", "    # twice\n    for _ in range(2):", []),
    ],
)  # fmt: skip
def test_code_that_took_part_is_known_to_have_changed(copy, file, old, new, expected):
    folder, changed = copy
    path = folder / "cifar_utils" / file
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")
    try:
        assert changed() == expected
    finally:
        path.write_text(text, "utf-8")


def test_environment_says_what_ran():
    import keras

    facts = describe_environment("float32")
    assert facts["backend"] == keras.backend.backend()
    assert facts["keras"] == keras.__version__
    assert facts["precision"] == "float32"
    assert facts["cores"] >= 1
    assert all(facts[key] for key in ("processor", "python", "platform", "backend_version"))
    assert json.loads(json.dumps(facts)) == facts


def test_only_the_gpus_that_the_backend_computes_on_are_named(tmp_path, monkeypatch):
    import keras

    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho NVIDIA A; echo NVIDIA A\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for devices, names in ((["gpu:0"], ["NVIDIA A"]), (["cpu:0"], [])):
        monkeypatch.setattr(keras.distribution, "list_devices", lambda devices=devices: devices)
        assert describe_environment("float32")["accelerators"] == names


def test_commit_is_of_the_file_s_own_repository(tmp_path):
    def git(*command):
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", "-C", tmp_path, *who, *command], check=True, capture_output=True)

    file, stranger = tmp_path / "record.py", tmp_path / "installed.py"
    page = tmp_path / "reports" / "published" / "report.html"
    page.parent.mkdir(parents=True)
    page.write_text("old")
    file.write_text("one")
    assert git_commit(file) is None
    git("init")
    git("add", "record.py", "reports")
    git("commit", "-m", "one")
    stranger.write_text("not tracked")
    commit = git_commit(file)
    assert len(commit) == 40
    assert git_commit(stranger) is None
    page.write_text("new")
    assert git_commit(file) == commit
    file.write_text("two")
    assert git_commit(file) == commit + "+changes"


def test_no_git_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_commit(Path(cifar_utils.__file__)) is None
