import logging
import re
from pathlib import Path

import nbformat
import papermill
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from papermill.exceptions import PapermillExecutionError

from cifar_utils.backend import PRECISIONS
from cifar_utils.choices import REGISTRIES, check_parameters
from cifar_utils.data import DATASETS
from cifar_utils.models.transfer import FLIPS
from cifar_utils.reporting.notebooks import (
    default_folder,
    find_notebook,
    list_notebooks,
    plan_run,
    read_options,
    read_parameters,
)
from cifar_utils.tuning import TUNERS, parse_space

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b'{"cells": 3}', b"[" * 10**5, None],
    ids=["no text", "no cells", "deep", "no file"],
)
def test_a_file_that_is_no_notebook_is_one_line(tmp_path, refused, content):
    path = tmp_path / "notebook.ipynb"
    if content is not None:
        path.write_bytes(content)
    with refused(path, "can't be read as a notebook"):
        read_parameters(path)


@pytest.mark.parametrize(
    ("tags", "words"),
    [([], "no cell tagged 'parameters'"), (["parameters"], "no parameter 'output'")],
)
def test_a_notebook_without_what_runs_need_is_told(tmp_path, refused, tags, words):
    path = tmp_path / "notebook.ipynb"
    cell = nbformat.v4.new_code_cell("seed: int = 0  # any", metadata={"tags": tags})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    with refused() as caught:
        read_parameters(path)
    assert str(caught.value).startswith(f"{path} has {words}")


def test_plain_papermill_is_refused_in_one_line_by_the_first_cell(project, write_notebook):
    own = "schedule: str = 'constant'  # its course"
    check = "from cifar_utils.choices import parameters_in\nparameters_in(globals())"
    notebook = write_notebook(check, parameters=own)
    given = {"schedule": "cosine(warmup=2.0)"}
    with pytest.raises(PapermillExecutionError) as raised:
        papermill.execute_notebook(
            str(notebook), None, given, kernel_name="python3", language="python"
        )
    (line,) = raised.value.traceback
    assert line.startswith("InputError: cosine warmup is 2.0")


# The notebooks' own cells


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return request.param


def test_papermill_reads_a_notebook_s_parameters_as_we_do(notebook, caplog):
    with caplog.at_level(logging.WARNING):
        inspected = papermill.inspect_notebook(str(notebook))
    assert caplog.messages == []
    own = read_parameters(notebook)
    assert list(inspected) == [*own, "output"]
    for name, row in own.items():
        assert inspected[name]["inferred_type_name"] == row.type
        assert inspected[name]["default"].strip("\"'") == str(row.default)
        assert inspected[name]["help"].endswith(row.meaning)


def test_a_notebook_s_defaults_are_allowed_and_explained(notebook):
    rows = read_parameters(notebook)
    assert check_parameters(rows, {}) == {name: row.default for name, row in rows.items()}
    assert all(row.meaning for row in rows.values())
    numbers = {name for name, row in rows.items() if row.type in ("int", "float")}
    assert {name for name in numbers if not rows[name].allowed} == set()


def test_a_notebook_offers_what_the_registries_hold(notebook):
    rows = read_parameters(notebook)
    registries = {name: REGISTRIES[name] for name in ("architecture", "optimizer", "schedule")}
    registries |= {"dataset": (*DATASETS, "folder:/path"), "precision": PRECISIONS}
    registries |= {"flips": FLIPS, "tuner": TUNERS}
    for name in registries.keys() & rows.keys():
        assert rows[name].choices == tuple(registries[name]), name
    if "space" in rows:
        ranges = [*REGISTRIES["space"]]
        assert rows["space"].meaning.startswith(f"of {', '.join(ranges)}, each with its bounds")
        assert list(parse_space(rows["space"].default)) == ranges


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in REGISTRIES for name in REGISTRIES[kind]]
)
def test_every_choice_and_each_of_its_options_has_a_meaning(kind, name):
    text, rows = read_options(kind, name)
    assert text
    for option, _, _, meaning in rows:
        assert meaning.endswith("."), f"{option} has a sentence, not bounds alone"


@pytest.mark.parametrize("name", ["01_tiny", "1", "tin", "notebooks/01_tiny.ipynb"])
def test_a_notebook_is_found_by_name_beginning_and_path(project, write_notebook, name):
    path = write_notebook()
    write_notebook(name="02_other")
    assert find_notebook(name).resolve() == path
    assert list(list_notebooks()) == ["01_tiny", "02_other"]


def test_a_whole_name_wins_over_longer_ones(project, write_notebook):
    for name in ("01", "01_tiny", "02_tinier", "03_net_tinier"):
        write_notebook(name=name)
    assert [find_notebook(name).stem for name in ("01", "tiny", "2", "tinier", "net")] == [
        "01", "01_tiny", "02_tinier", "02_tinier", "03_net_tinier",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("01_tinny", "unknown notebook '01_tinny'; did you mean '01_tiny'?"),
        ("0", "may be 01_tiny or 02_other; write more"),
        ("elsewhere/01_tiny.ipynb", "notebook elsewhere/01_tiny.ipynb is not there"),
        ("elsewhere/01_tiny", "a file's path or one of these: 01_tiny, 02_other"),
        ("third.ipynb", "unknown notebook 'third'"),
    ],
)
def test_a_notebook_that_is_not_there_is_named(project, write_notebook, refused, name, words):
    write_notebook()
    write_notebook(name="02_other")
    with refused(words):
        find_notebook(name)


def test_each_choice_of_parameters_has_a_folder_of_its_own(project, write_notebook):
    notebook = write_notebook()
    given = [{}, {"epochs": 3}, {"epochs": 4}, {"note": "3"}, {"dataset": "cifar10"}]
    names = [plan_run(notebook, each).folder.name for each in given]
    assert names[0] == "01_tiny-digits"
    assert len(set(names)) == len(given)
    assert plan_run(notebook, {"epochs": "2", "note": "3"}).folder.name == names[3]
    pictures = [{"dataset": f"folder:{name}"} for name in ("a/pets", "b/pets", "pets", "a/", "b/")]
    assert len({default_folder(notebook, each, {}) for each in pictures}) == len(pictures)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.text(), st.text())
def test_any_parameter_text_names_a_folder_right_below_reports(project, write_notebook, one, two):
    parameters = {"dataset": one, "architecture": two, "seed": 0}
    folder = default_folder(project / "01_tiny.ipynb", parameters, parameters)
    assert folder.resolve().parent == project / "reports"
    assert folder.name.startswith("01_tiny-")
    assert re.search(r"s0(-[0-9a-f]{6})?$", folder.name)
