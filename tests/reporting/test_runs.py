import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cifar_utils.errors import InputError
from cifar_utils.reporting.runs import (
    default_folder,
    find_notebook,
    list_notebooks,
    plan_run,
    project_folder,
)


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
        ("elsewhere/01_tiny.ipynb", "unknown notebook 'elsewhere/01_tiny'"),
        ("third.ipynb", "unknown notebook 'third'"),
    ],
)
def test_a_notebook_that_is_not_there_is_named(project, write_notebook, name, words):
    write_notebook()
    write_notebook(name="02_other")
    with pytest.raises(InputError) as raised:
        find_notebook(name)
    assert words in str(raised.value)


def test_outside_of_a_project_the_notebooks_beside_the_package_are_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (project_folder() / "cifar_utils").is_dir() or project_folder() == tmp_path


def test_a_planned_run_has_all_parameters_but_the_output_folder(project, write_notebook):
    run = plan_run(write_notebook(), {"epochs": "3"})
    assert run.parameters == {"epochs": 3, "dataset": "digits", "note": ""}
    assert run.folder.parent == project / "reports"


def test_each_choice_of_parameters_has_a_folder_of_its_own(project, write_notebook):
    notebook = write_notebook()
    given = [{}, {"epochs": 3}, {"epochs": 4}, {"note": "3"}, {"dataset": "cifar10"}]
    names = [plan_run(notebook, each).folder.name for each in given]
    assert names[0] == "01_tiny-digits"
    assert len(set(names)) == len(given)
    assert plan_run(notebook, {"epochs": "2", "note": "3"}).folder.name == names[3]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.text(), st.text())
def test_any_parameter_text_names_a_folder_right_below_reports(project, write_notebook, one, two):
    parameters = {"dataset": one, "architecture": two, "seed": 0}
    folder = default_folder(project / "01_tiny.ipynb", parameters, parameters)
    assert folder.resolve().parent == project / "reports"
    assert folder.name.startswith("01_tiny-")
    assert folder.name.endswith("s0")
