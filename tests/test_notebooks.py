"""Every notebook as it is stored, and as plain papermill runs it on a few images of digits."""

import importlib.util
import math
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nbformat
import numpy as np
import pytest

from cifar_utils import load_run
from cifar_utils.data import load_dataset
from cifar_utils.evaluation import evaluate_views
from cifar_utils.models import build_model
from cifar_utils.runs import folder
from cifar_utils.runs.record import RunRecord
from cifar_utils.training import fit

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SMALL = {"train_limit": 100, "test_limit": 20, "epochs": 1, "batch_size": 32}
# Two trials of one size: which of them is the better one may hang on the backend.
# Which images are the least certain may hang on the precision, so all have six views.
FEW = {
    "01_vgg_like": {"architecture": "cifarnet(width=0.25)"},
    "02_resnet": {
        "architecture": "report_a(16)",
        "architectures": "report_a(16, activation=True)",
    },
    "03_transfer_resnet50v2": {"base": "mobilenet"},
    "04_augmentation": {
        "architecture": "report_a(16)",
        "augmentations": "none; crop(2)",
        "trial_epochs": 1,
        "seeds": 2,
    },
    "05_depth_and_width": {"width": 0.25},
    "06_training_collapse": {"width": 0.25, "optimizer": "sgd"},
    "07_tuning": {
        "architecture": "report_a(16)",
        "optimizer": "sgd",
        "trials": 2,
        "space": "learning_rate(0.001, 0.1), dropout(0.1, 0.4)",
    },
    "08_speed_record": {"architecture": "airbench(width=0.25)", "unsure": 1.0},
}
SHOWN = [path for path in NOTEBOOKS if "# def my_network" in path.read_text()]
CHATTER = re.compile(r"oneDNN|absl|cpu_feature|TensorFlow binary|cuda|^WARNING:|^[IWE]\d{4}", re.M)


@dataclass(frozen=True)
class Run:
    """What plain papermill made of a notebook."""

    source: Path
    terminal: str
    notebook: nbformat.NotebookNode
    loaded: folder.Run

    @property
    def record(self) -> RunRecord:
        return self.loaded.record

    @property
    def outputs(self):
        return [output for cell in self.notebook.cells for output in cell.get("outputs", [])]

    @property
    def streams(self):
        return {kind: self._text(kind) for kind in ("stdout", "stderr")}

    def _text(self, kind):
        return "".join(output.text for output in self.outputs if output.get("name") == kind)


def papermill(source, folder, environment, **parameters):
    output, executed = folder / source.stem, folder / source.name
    parameters = SMALL | FEW.get(source.stem, {}) | parameters
    given = [text for item in parameters.items() for text in ("-p", *map(str, item))]
    command = [sys.executable, "-m", "papermill", str(source), str(executed), *given]
    done = subprocess.run(
        [*command, "-p", "output", str(output), "--no-progress-bar"],
        env=os.environ | environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    terminal = done.stdout + done.stderr
    return Run(source, terminal, nbformat.read(executed, as_version=4), load_run(output))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with ThreadPoolExecutor(2) as pool:
        runs = pool.map(lambda source: papermill(source, folder, {}), NOTEBOOKS)
        return {run.source: run for run in runs}


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def source(request):
    return request.param


def test_a_notebook_is_valid_stored_without_outputs_and_has_one_parameters_cell(source):
    notebook = nbformat.read(source, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in code] == [[]] * len(code)
    assert {cell.execution_count for cell in code} == {None}
    assert len([cell for cell in code if "parameters" in cell.metadata.get("tags", [])]) == 1
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


def test_a_notebook_leaves_a_record_of_finite_scores(runs, source):
    record = runs[source].record
    assert record.notebook == source.stem
    assert record.parameters | SMALL == record.parameters
    held_out = round(100 * record.parameters["validation_fraction"])
    assert {name: record.dataset[name] for name in ("name", "train", "validation", "test")} == {
        "name": "digits", "train": 100 - held_out, "validation": held_out, "test": 20,
    }  # fmt: skip
    assert [row["epoch"] for row in record.history] == [record.best_epoch] == [1]
    numbers = [value for row in record.history for value in row.values()]
    scores = record.scores["test"]
    assert scores["n"] == 20
    low, high = scores["top1_interval"]
    assert 0 <= low <= scores["top1"] <= high <= 1
    assert scores["top1"] <= scores["top5"] <= 1
    numbers += [scores["loss"], *scores["per_class"].values(), *record.seconds.values()]
    assert len(scores["per_class"]) == 10
    assert all(math.isfinite(number) for number in numbers)
    assert record.model["flops"] > 1e6
    assert record.seconds.keys() >= {"load", "train", "evaluate", "total"}


def test_a_notebook_leaves_its_predictions_and_a_model_that_makes_them(runs, source):
    run = runs[source].loaded
    assert run.scores.to_dict() == run.record.scores["test"]
    data = load_dataset("digits", **{key: SMALL[key] for key in ("train_limit", "test_limit")})
    unsure = run.record.parameters.get("unsure", 0)
    again = evaluate_views(run.model, data.test, data.class_names, unsure)[6]
    # Notebooks may compute in bfloat16, with some three digits; saved models are in float32.
    np.testing.assert_allclose(again.probabilities, run.scores.probabilities, atol=0.05)
    np.testing.assert_array_equal(again.labels, run.scores.labels)


def test_what_was_shown_while_it_trained_is_gone_from_the_page(runs, source):
    cells = runs[source].notebook.cells
    cell = next(cell for cell in cells if re.search(r"= (fit|tune|run_trials)\(", cell.source))
    kinds = [(output.output_type, dict(output.data)) for output in cell.outputs]
    *lines, (last, _) = kinds
    assert lines
    assert all(line == ("display_data", {"text/plain": ""}) for line in lines)
    assert last == "execute_result"
    texts = [str(output.get("data")) for output in runs[source].outputs]
    assert not [text for text in texts if "<svg" in text or "epoch 1 of" in text]


def test_no_library_chatter_reaches_a_page_or_the_terminal(runs, source):
    run = runs[source]
    assert CHATTER.findall(run.terminal) == []
    assert run.streams == {"stdout": "", "stderr": ""}
    texts = [output.get("data", {}).get("text/plain") for output in run.outputs]
    assert "None" not in texts


def test_each_section_shows_something(runs, source):
    pages = [output.data.get("text/html", "") for output in runs[source].outputs]
    figures = [page for page in pages if "<img" in page]
    assert len(figures) >= 5, "samples, curves, classes, confusion, mistakes"
    assert all(re.search(r'alt="[^"]{20,}', page) and "<figcaption" in page for page in figures)
    assert any("<details>" in page and "parameters" in page for page in pages)
    assert sum("<table" in page for page in pages) >= 2
    assert any("95% interval" in page for page in pages)


def test_random_features_are_said_to_mean_nothing(runs):
    (run,) = [run for path, run in runs.items() if "transfer" in path.stem]
    said = [output.data.get("text/markdown", "") for output in run.outputs]
    assert any("accuracy says nothing" in text for text in said)


@pytest.mark.slow
def test_the_base_is_trained_on_with_the_head_where_it_is_asked_for(tmp_path):
    (source,) = [path for path in NOTEBOOKS if "transfer" in path.stem]
    fine_tuning = {"base": "resnet50v2", "fine_tune_layers": 2, "fine_tune_epochs": 2}
    run = papermill(source, tmp_path, {}, **fine_tuning)
    record = run.record
    assert [row["epoch"] for row in record.history] == [1, 2, 3]
    assert [row["learning_rate"] for row in record.history] == pytest.approx([1e-3, 1e-5, 1e-5])
    # Of the base, two convolutions: 3×3 of 512 filters, and 1×1 of 2,048.
    head, trained = 2_592_778, 9 * 512 * 512 + 513 * 2048
    assert record.model["trainable_parameters"] == head + trained
    assert run.streams == {"stdout": "", "stderr": ""}
    cells = [cell for cell in run.notebook.cells if "= fit(" in cell.source]
    assert [dict(cell.outputs[0].data) for cell in cells] == [{"text/plain": ""}] * 2
    pages = [output.data.get("text/html", "") for output in run.outputs]
    curves = [page for page in pages if "Learning curves of" in page]
    assert [re.search(r"Learning curves of (\d)", page)[1] for page in curves] == ["1", "3"]
    assert {path.name for path in (tmp_path / source.stem / "checkpoint").iterdir()} >= {
        "state.json",
        "fine_tune",
    }


# Where several networks are compared, which is the best may hang on the backend.
@pytest.mark.parametrize(
    "number", ["01", *(pytest.param(each, marks=pytest.mark.slow) for each in ("02", "03"))]
)
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_notebook_runs_on_another_backend(runs, tmp_path, backend, number):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    # On so few images, compiling takes longer than what it speeds up.
    environment = {"KERAS_BACKEND": backend, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    (source,) = [path for path in NOTEBOOKS if path.stem.startswith(number)]
    run = papermill(source, tmp_path, environment)
    assert run.record.environment["backend"] == backend
    assert run.record.model == runs[source].record.model
    assert run.record.dataset == runs[source].record.dataset
    assert math.isfinite(run.record.scores["test"]["loss"])
    assert CHATTER.findall(run.terminal + str(run.streams)) == []


@pytest.mark.slow
def test_a_run_killed_in_training_leaves_the_record_of_one_left_alone(tmp_path):
    given = [text for item in SMALL.items() for text in ("-p", "=".join(map(str, item)))]
    command = [sys.executable, "-m", "cifar_utils.reporting.cli", "run", str(NOTEBOOKS[0]), *given]
    command += ["-p", "epochs=6", "--output"]
    alone, killed = tmp_path / "alone" / "run", tmp_path / "killed" / "run"
    subprocess.run([*command, alone], check=True, capture_output=True)
    process = subprocess.Popen([*command, killed], stdout=subprocess.DEVNULL)
    while not (killed / "checkpoint" / "state.json").exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "record.json").exists()
    subprocess.run([*command, killed], check=True, capture_output=True)
    records = [load_run(folder).record for folder in (alone, killed)]
    rows = [[{**row, "seconds": 0} for row in record.history] for record in records]
    assert rows[0] == rows[1]
    assert records[0].scores == records[1].scores
    assert len(records[1].trained_by) == 1


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.stem)
def test_the_example_of_a_network_of_one_s_own_learns_by_the_notebook_s_own_settings(path):
    digits = load_dataset("digits")
    cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    (example,) = (source for source in cells if "# def my_network" in source)
    namespace = {}
    exec(cells[0], namespace)
    exec(cells[1], namespace)
    exec(re.sub("^# ?", "", example, flags=re.M), namespace)
    model = build_model(namespace["architecture"], digits)
    assert (model.name, model.output_shape) == ("my_network", (None, 10))
    names = ("optimizer", "learning_rate", "schedule", "weight_decay", "batch_size")
    settings = {name: namespace[name] for name in names}
    history = fit(model, digits.train, digits.validation, epochs=6, **settings)
    assert history.best["val_accuracy"] > 0.3
    assert len(SHOWN) == 3
