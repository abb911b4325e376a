from contextlib import contextmanager
from pathlib import Path

import nbformat
import psutil
import pytest
from hypothesis import settings

import cifar_utils  # noqa: F401  (before TensorFlow: it chooses oneDNN for all tests)

# No test is about time: a machine that does other things, too, may take any.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

PARAMETERS = """\
epochs: int = 2  # at least 1: passes over the training set
dataset: str = "digits"  # digits | cifar10: what is classified
note: str = ""  # anything
output: str = None  # folder for the record and checkpoints; None keeps nothing"""

RECORD = {
    "schema": 1,
    "run": "a run",
    "notebook": "01_tiny",
    "parameters": {},
    "dataset": {"name": "digits", "note": "", "train": 900, "validation": 100, "test": 200},
    "model": {"architecture": "tiny", "parameters": 2444672},
    "environment": {},
    "seconds": {"train": 60.0, "total": 65.0},
    "history": [{"epoch": 1, "loss": 1.0}],
    "best_epoch": 1,
    "scores": {
        "test": {
            "n": 200,
            "top1": 0.875,
            "top1_interval": [0.86, 0.89],
            "top5": 0.991,
            "top5_interval": [0.98, 0.995],
            "per_class": dict.fromkeys("abcdef", 0.9),
        }
    },
}
WRITE_RECORD = f"""\
import json
from pathlib import Path

with Path(output, "events.jsonl").open("a") as file:
    for epoch in range(1, epochs + 1):
        event = {{"time": 0.0, "event": "epoch", "epoch": epoch, "epochs": epochs}}
        print(json.dumps(event), file=file)
Path(output, "record.json").write_text(json.dumps({RECORD!r}))"""


@pytest.fixture(scope="session")
def write_notebook():
    """Write a source notebook: title, parameters cell, then cells of code (Markdown after '#')."""

    def write(
        *sources: str,
        name: str = "01_tiny",
        title: str = "What can a tiny notebook show?",
        record: bool = True,
        folder: Path = Path("notebooks"),
        parameters: str = "",
    ) -> Path:
        new = nbformat.v4
        both = f"{parameters}\n{PARAMETERS}".strip()
        tagged = new.new_code_cell(both, metadata={"tags": ["parameters"]})
        cells = [new.new_markdown_cell(f"# {title}\n\nA first\nparagraph.\n\nMore."), tagged]
        for source in (*sources, *([WRITE_RECORD] if record else [])):
            kind = new.new_markdown_cell if source.startswith("#") else new.new_code_cell
            cells.append(kind(source))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder.absolute() / f"{name}.ipynb"
        nbformat.write(new.new_notebook(cells=cells), path)
        return path

    return write


@pytest.fixture(scope="session")
def make_record():
    """Make the record of a small run, with what is to be different."""
    from cifar_utils.runs.record import RunRecord

    def make(**changes):
        for part in ("dataset", "model", "seconds"):
            changes[part] = RECORD[part] | changes.get(part, {})
        test = RECORD["scores"]["test"] | changes.get("scores", {}).get("test", {})
        return RunRecord(**RECORD | changes | {"scores": {"test": test}})

    return make


@pytest.fixture(scope="session")
def digits():
    from cifar_utils.data import load_dataset

    return load_dataset("digits", train_limit=100, test_limit=20)


@pytest.fixture(scope="session")
def refused():
    """The block raises an InputError of one line with all of these words."""
    from cifar_utils.errors import InputError

    @contextmanager
    def check(*words):
        with pytest.raises(InputError) as caught:
            yield caught
        message = str(caught.value)
        assert len(message.splitlines()) == 1, message
        assert [word for word in words if str(word) not in message] == [], message

    return check


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project to work in: the current folder, with notebooks/."""
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(project, capsys):
    """Call the command line in the project: its status, what it printed, its error lines."""

    from cifar_utils.reporting.cli import main

    def cli(*arguments):
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return cli


@pytest.fixture(scope="session")
def alive():
    """Whether a process runs: one that has ended may stay listed until its parent looks."""

    def alive(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return alive
