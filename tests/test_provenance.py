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
from cifar_utils.provenance import changes, describe_environment, git_commit, join_stretches

ONE, OTHER = {"cores": 2, "git": "abc"}, {"cores": 1, "git": "abc"}


@given(st.lists(st.sampled_from([ONE, OTHER])))
def test_stretches_cover_each_epoch_once_with_what_computed_it(environments):
    epochs = [{"first": epoch, "last": epoch, **one} for epoch, one in enumerate(environments, 1)]
    stretches = join_stretches(epochs)
    assert join_stretches(stretches) == stretches
    told = [
        {"cores": row["cores"], "git": row["git"]}
        for row in stretches
        for _ in range(row["first"], row["last"] + 1)
    ]
    assert told == environments
    assert all(one["cores"] != later["cores"] for one, later in pairwise(stretches))


def test_what_differs_is_told_with_both_values():
    stretch = {"first": 1, "last": 1, **ONE}
    assert changes(stretch, ONE) == ""
    assert changes(stretch, OTHER) == "cores 1 instead of 2"


TRAINING = """\
import json
from cifar_utils.data import load_dataset
from cifar_utils.models import build_model
from cifar_utils.training import fit
data = load_dataset("digits", train_limit=20, validation_fraction=0)
model = build_model("cifarnet(width=0.1)", data, augmentation="crop(2)")
print(json.dumps(fit(model, data.train, data.validation, epochs=1, optimizer="muon").code))
"""
KNOWN = "import json; from cifar_utils.provenance import changed_code; "


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package, and what tells whose code there is another than a training used."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(Path(cifar_utils.__file__).parent, folder / "cifar_utils")

    def run(code):
        environment = os.environ | {"PYTHONPATH": str(folder)}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, check=True)
        return json.loads(done.stdout)

    recorded = run(TRAINING)

    def changed():
        names = run(f"{KNOWN}print(json.dumps(changed_code({recorded})))")
        return [name.removeprefix("cifar_utils.") for name in names]

    assert changed() == []
    return folder, changed


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("models/vgg.py", "halve(2)(step(", "halve(3)(step(", "models.vgg"),
        ("models/blocks.py", "momentum=0.9", "momentum=0.8", "models.blocks"),
        ("augmentation/geometry.py", "places = 2", "places = 3", "augmentation.geometry"),
        ("training/schedules.py", "math.floor(", "math.ceil(", "training.schedules"),
        ("training/muon.py", "3.4445", "3.4446", "training.muon"),
        ("backend.py", "capability >= 8", "capability >= 9", "backend"),
        ("models/resnet.py", "math.gcd(", "math.lcm(", ""),
        ("plots/figure.py", "WIDTH = ", "WIDTH = 1 + ", ""),
        ("models/vgg.py", '"""VGG-19', '"""The VGG-19', ""),
        ("models/vgg.py", '"""VGG-like', '"""The VGG-like', ""),
        ("models/vgg.py", "    for _ in range(2):", "    # twice\n    for _ in range(2):", ""),
    ],
)
def test_code_that_took_part_is_known_to_have_changed(copy, file, old, new, expected):
    folder, changed = copy
    path = folder / "cifar_utils" / file
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")
    try:
        assert changed() == expected.split()
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


def test_commit_is_of_the_file_s_own_repository(tmp_path, monkeypatch):
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
    with monkeypatch.context() as patched:  # where git can't tell what has changed
        slow = tmp_path / "bin" / "git"
        slow.parent.mkdir()
        real = shutil.which("git")
        slow.write_text(f'#!/bin/sh\ncase "$*" in *status*) exit 1; esac\nexec {real} "$@"\n')
        slow.chmod(0o755)
        patched.setenv("PATH", str(slow.parent), prepend=os.pathsep)
        assert git_commit(file) == commit + "+changes"
    file.write_text("two")
    assert git_commit(file) == commit + "+changes"


def test_no_git_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_commit(Path(cifar_utils.__file__)) is None
