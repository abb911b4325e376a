import io

import pytest
from rich.console import Console

from cifar_utils.parameters import InputError
from cifar_utils.series import read_series, run_series


@pytest.fixture
def read(project):
    """Read the profile ``quick`` of a series file of this content."""

    def read(content: str):
        (project / "series.yaml").write_text(content)
        return read_series(project / "series.yaml", "quick", project / "out")

    return read


def runs_yaml(*rows: str) -> str:
    return "profiles:\n  quick:\n" + "".join(f"    - {row}\n" for row in rows)


def test_a_profile_names_runs(read, write_notebook, project):
    notebook = write_notebook()
    one, two = read(
        runs_yaml(
            "{name: one, notebook: 01_tiny}",
            "{name: two, notebook: '01', parameters: {epochs: 5, note: '7'}}",
        )
    )
    assert (one.notebook, one.folder) == (notebook, project / "out" / "one")
    assert one.parameters == {"epochs": 2, "dataset": "digits", "note": ""}
    assert two.parameters == {"epochs": 5, "dataset": "digits", "note": "7"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{name: a, notebook: 01_tinny}", "unknown notebook '01_tinny'; did you mean '01_tiny'"),
        ("{name: a, notebook: '01', parameters: {epoch: 1}}", "unknown parameter 'epoch'"),
        ("{name: a, notebook: '01', parameters: {epochs: 0}}", "epochs is 0"),
        ("{name: a, notebook: '01', parameters: {note: 7}}", "note is 7; it takes text"),
        ("{name: a, notebook: '01', parameters: [epochs]}", "parameters is ['epochs']"),
        ("{name: a, notebook: '01', seeds: 3}", "unknown key 'seeds'"),
        ("{name: a}", "it has no notebook"),
        ("{notebook: '01'}", "it has no name"),
        ("{name: 3, notebook: '01'}", "name is 3; it must be text"),
        ("{name: a/b, notebook: '01'}", "name 'a/b' names no folder"),
        ("{name: .., notebook: '01'}", "name '..' names no folder"),
        ("01_tiny", "'01_tiny' is not a run"),
        ("{name: fine, notebook: '01'}", "name 'fine' is another run's already"),
    ],
)
def test_each_mistake_is_a_line_of_its_own(read, write_notebook, row, words):
    write_notebook()
    with pytest.raises(InputError) as raised:
        read(runs_yaml("{name: fine, notebook: '01'}", row, "{name: b}"))
    second, third = str(raised.value).splitlines()
    assert "profile 'quick', run 2: " in second
    assert words in second
    assert "run 3: it has no notebook" in third


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("profiles: {quick: [", "is no YAML"),
        ("[]", "has no 'profiles'"),
        ("profiles: {slow: []}", "unknown profile 'quick'"),
        ("profiles: {quick: []}", "'quick' is not a list of runs"),
        ("profiles: {quick: 3}", "'quick' is not a list of runs"),
    ],
)
def test_a_file_of_another_kind_is_refused_in_one_line(read, content, words):
    with pytest.raises(InputError) as raised:
        read(content)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_named(project):
    with pytest.raises(InputError, match=r"none\.yaml can't be read"):
        read_series(project / "none.yaml", "quick", project)


def test_a_failing_run_stops_no_other_and_a_done_one_is_left_alone(read, write_notebook):
    refuse = "from cifar_utils.parameters import InputError\nraise InputError('no such weights')"
    write_notebook(refuse, name="02_refused")
    write_notebook()
    rows = "{name: bad, notebook: '02'}", "{name: good, notebook: '01', parameters: {epochs: 1}}"

    def outcomes(*rows):
        console = Console(file=io.StringIO())
        return [
            (outcome.run.name, outcome.status, outcome.error)
            for outcome in run_series(read(runs_yaml(*rows)), console=console)
        ]

    bad = ("bad", "failed", "no such weights")
    assert outcomes(*rows) == [bad, ("good", "finished", "")]
    changed = rows[1].replace("epochs: 1", "epochs: 3")
    assert outcomes(rows[1]) == [("good", "done", "")]
    assert outcomes(changed) == [("good", "finished", "")]


def test_the_project_s_own_series_is_without_mistakes(monkeypatch, tmp_path):
    from cifar_utils.reports.runs import project_folder

    file = project_folder() / "notebooks" / "series.yaml"
    assert read_series(file, "quick", tmp_path)
