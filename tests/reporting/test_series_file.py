from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cifar_utils.errors import InputError
from cifar_utils.reporting.notebooks import project_folder
from cifar_utils.reporting.series_file import read_series, select
from cifar_utils.runs.folder import Run


@pytest.fixture
def read(project):
    """Read the profile ``quick`` of a series file of this content."""

    def read(content: str):
        (project / "series.yaml").write_text(content)
        return read_series(project / "series.yaml", "quick", project / "out")

    return read


def runs_yaml(*rows: str) -> str:
    """A series file; its first row is on line 3."""
    return "profiles:\n  quick:\n" + "".join(f"    - {row}\n" for row in rows)


def mistakes(read, content: str) -> list[str]:
    """What is wrong with a file, each with its line but without the file's name."""
    with pytest.raises(InputError) as raised:
        read(content)
    return [line.rpartition("series.yaml:")[2] for line in str(raised.value).splitlines()]


def test_a_profile_names_runs(read, write_notebook, project):
    notebook = write_notebook()
    one, two, three = read(
        runs_yaml(
            "{name: one, notebook: 01_tiny}",
            "{name: two, notebook: '01', parameters: {epochs: 5, note: '7'}}",
            "{name: three, notebook: 1}",
        )
    )
    assert (one.notebook, one.folder) == (notebook, project / "out" / "one")
    assert three.notebook == notebook
    assert one.parameters == {"epochs": 2, "dataset": "digits", "note": ""}
    assert two.parameters == {"epochs": 5, "dataset": "digits", "note": "7"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{name: a, notebook: 01_tinny}", "unknown notebook '01_tinny'; did you mean '01_tiny'"),
        ("{name: a, notebook: '01', parameters: {epoch: 1}}", "unknown parameter 'epoch'"),
        ("{name: a, notebook: '01', seed: 3}", "unknown key 'seed'; did you mean 'seeds'"),
        ("{name: a, notebook: '01', seeds: 3}", "seeds is 3; it takes a list, as in [a, b]"),
        ("{name: a, notebook: '01', seeds: [0]}", "unknown parameter 'seed'"),
        (
            "{name: a, notebook: '01', matrix: {epochs: 3}}",
            "3 in matrix; it takes a list of values",
        ),
        ("{name: a, notebook: '01', matrix: {epochs: [1, 0]}}", "epochs is 0"),
        ("{name: a, notebook: '01', parameters: {patience: 3}}", "patience 3 goes by validation"),
        ("{name: a, notebook: '01', matrix: {note: {'!': x}}}", "makes no name; write each as"),
        (
            "{name: a, notebook: '01', parameters: {epochs: 1}, matrix: {epochs: [1]}}",
            "epochs is given twice",
        ),
        ("{name: a, notebook: '01', matrix: {note: ['a!', 'a,']}}", "name 'a-a' is another run's"),
        ("{name: a, notebook: '01', timeout: 0 s}", "timeout is '0 s'"),
        ("{name: a, notebook: '01', name: c}", "'name' is here twice"),
        ("{notebook: '01'}", "it has no name"),
        ("{name: a/b, notebook: '01'}", "name is 'a/b'; leave out slashes"),
        ('{name: "a\\0b", notebook: "01"}', r"name is 'a\x00b'; leave out"),
        (f"{{name: a, notebook: '01', matrix: {{note: {{{'é' * 100}: x}}}}}}", "200 bytes"),
        ("{name: FINE, notebook: '01'}", "name 'FINE' is another run's already"),
        ("01_tiny", "'01_tiny' is not a mapping; it takes name, notebook"),
        ("{name: a, notebook: '01', parameters: {2: 3}}", "key 2 is not text; write it in quotes"),
    ],
)
def test_each_mistake_is_told_with_its_line(read, write_notebook, row, words):
    more = "patience: int = None  # epochs\nvalidation_fraction: float = 0.0  # share held out"
    write_notebook(parameters=more)
    told = mistakes(read, runs_yaml("{name: fine, notebook: '01'}", row, "{name: b}"))
    assert any(line.startswith("4: ") and words in line for line in told)
    assert told[-1].startswith("5: it has no notebook")


def test_mistakes_of_all_profiles_are_told_at_once_each_at_its_own_line(read, write_notebook):
    write_notebook()
    told = mistakes(
        read,
        """\
shared:
  all: &all
    epochs: 0
profiles:
  quick:
    - name: a
      notebook: 01_tiny
      parameters:
        <<: *all
        note: 7
      timeout: no
  other:
    - name: b
      notbook: 01_tiny
profile: {}
""",
    )
    assert [line.partition(":")[0] for line in told] == ["3", "10", "11", "13", "14", "15"]


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None
)
@given(st.text(max_size=40))
def test_any_text_is_read_or_refused_in_words(read, write_notebook, text):
    write_notebook()
    for content in (text, f"profiles: {{quick: [{text}]}}", f"profiles:\n  quick:\n  - {text}"):
        with suppress(InputError, UnicodeEncodeError):
            read(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("profiles: {quick: [", "yaml:1: it is not YAML"),
        ("", "is empty; it takes profiles"),
        ("# no runs yet\nnull", "is empty; it takes profiles"),
        ("profiles: {slow: [{name: a, notebook: '01'}]}", "unknown profile 'quick'"),
        (
            "2024: 3\nprofiles: {quick: [{name: a, notebook: '01'}]}",
            "yaml:1: key 2024 is not text; write it in quotes",
        ),
        ("profiles: {quick: 3}", "yaml:1: quick is 3; it takes a list, as in [a, b]"),
        ("profiles: {quick: [{<<: 3, name: a, notebook: '01'}]}", "yaml:1: it is not YAML"),
    ],
)
def test_a_file_of_another_kind_is_refused(read, write_notebook, refused, content, words):
    write_notebook()
    with refused(words):
        read(content)


def test_a_matrix_stands_for_a_run_of_each_combination(read, write_notebook):
    write_notebook()
    matrix = "{note: {short: 'crop(4), flip', none: ''}, epochs: [1, 2]}"
    runs = read(runs_yaml(f"{{name: m, notebook: '01', matrix: {matrix}}}"))
    found = {run.name: (run.parameters["note"], run.parameters["epochs"]) for run in runs}
    assert found == {
        "m-short-1": ("crop(4), flip", 1),
        "m-short-2": ("crop(4), flip", 2),
        "m-none-1": ("", 1),
        "m-none-2": ("", 2),
    }
    (run,) = read(runs_yaml("{name: m, notebook: '01', matrix: {note: ['crop(4), flip']}}"))
    assert run.name == "m-crop-4-flip"


def test_shared_parameters_are_written_once_and_a_run_s_own_win(read, write_notebook):
    write_notebook()
    first = "{name: a, notebook: '01', parameters: &shared {epochs: 5, note: x}}"
    second = "{name: b, notebook: '01', parameters: {<<: *shared, epochs: 6}}"
    third = "{name: c, notebook: '01', parameters: *shared}"
    found = [
        (run.parameters["epochs"], run.parameters["note"])
        for run in read(runs_yaml(first, second, third))
    ]
    assert found == [(5, "x"), (6, "x"), (5, "x")]


def test_a_run_has_its_timeout(read, write_notebook):
    write_notebook()
    row = "{name: a, notebook: '01', timeout: 1.5 h}"
    told, plain = read(runs_yaml(row, "{name: b, notebook: '01'}"))
    assert (told.timeout, plain.timeout) == (5400, None)


def test_a_user_s_own_file_names_notebooks_beside_it(project, write_notebook, tmp_path_factory):
    write_notebook()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    mine = write_notebook(name="mine", folder=elsewhere / "sub")
    (elsewhere / "s.yaml").write_text(
        runs_yaml("{name: a, notebook: sub/mine.ipynb}", "{name: b, notebook: '01'}")
    )
    one, two = read_series(elsewhere / "s.yaml", "quick", project / "out")
    assert one.notebook == mine
    assert two.notebook.stem == "01_tiny"


def test_the_only_profile_of_a_file_needs_no_name(project, write_notebook):
    write_notebook()
    rows = "    - {name: a, notebook: '01'}\n"
    file = project / "mine.yaml"
    file.write_text(f"profiles:\n  night:\n{rows}")
    (run,) = read_series(file)
    assert run.folder == project / "reports/night/a"
    file.write_text(f"profiles:\n  night:\n{rows}  quick:\n{rows}")
    (run,) = read_series(file)
    assert run.folder == project / "reports/quick/a"


def test_runs_are_selected_by_name(read, write_notebook, refused):
    write_notebook()
    names = "ab", "ac", "b", '"b [x]"'
    runs = read(runs_yaml(*(f"{{name: {name}, notebook: '01'}}" for name in names)))

    def names(only):
        return [run.name for run in select(runs, only)]

    assert names([]) == ["ab", "ac", "b", "b [x]"]
    assert names(["b [x]"]) == ["b [x]"]
    assert names(["a*"]) == ["ab", "ac"]
    assert names(["ab", "b"]) == ["ab", "b"]
    with refused("no run fits --only y --only z*; there are ab, ac, b, b [x]"):
        names(["y", "z*"])


def test_what_is_published_is_what_the_project_s_series_says():
    reports = project_folder() / "reports" / "published"
    for profile in ("cpu", "schedules", "ingredients"):
        runs = read_series(project_folder() / "notebooks" / "series.yaml", profile, reports)
        published = [run for run in runs if run.folder.exists()]
        assert published
        for run in published:
            # A page stays what it was when its notebook gets or loses a parameter.
            for name, value in Run(run.folder).facts["parameters"].items():
                assert run.parameters.get(name, value) == value
