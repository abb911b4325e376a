"""Publish finished runs: copy the files that a reader needs, as a snapshot of a commit."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cifar_utils.errors import InputError
from cifar_utils.files import FACTS, NOTEBOOK, PAGE, PREDICTED, RECORD, write_atomically
from cifar_utils.provenance import committed_text
from cifar_utils.reporting.export import export_page
from cifar_utils.reporting.notebooks import project_folder, written
from cifar_utils.runs.cells import cells_of, code_digest
from cifar_utils.runs.folder import Run, load_run
from cifar_utils.runs.record import UNKNOWN

PUBLISHED = (RECORD, FACTS, NOTEBOOK, PREDICTED)  # and the page, which is exported from them


def publish(folders: Sequence[Path], published: Path, anyway: bool = False) -> Iterator[Path]:
    """Copy finished runs to folders of the same names.

    A published run of that name, notebook and parameters is replaced. All runs are checked before
    the first is copied.

    Parameters
    ----------
    folders
        The runs' folders.
    published
        The folder for the copies.
    anyway
        Whether to copy runs without a known commit, or of a notebook that is not in it, too.

    Yields
    ------
    Path
        The folder of each copy.

    Raises
    ------
    InputError
        Where a folder holds no finished run, a run lacks its notebook, its commit is not known or
        has another notebook, or two runs of other parameters have one name.

    """
    for old in published.glob(".*.old"):  # an earlier call was stopped between its two renames
        target = published / old.stem[1:]
        if not target.exists():
            old.rename(target)
    runs = [load_run(folder) for folder in folders]
    for place, run in enumerate(runs):
        if not run.facts or not (run.folder / NOTEBOOK).exists():
            missing = NOTEBOOK if run.facts else FACTS
            raise InputError(f"run {run.folder} has no {missing}; execute it by cifar-reports run")
        if run.facts.get("outcome") != "finished":
            raise InputError(f"run {run.folder} is not finished; the same command goes on with it")
        others = [*runs[:place], Run(published / run.name)]
        for other in (other for other in others if other.name == run.name and other.record):
            if _identity(other) != _identity(run):
                way_out = "rename its folder, or delete that run first"
                raise InputError(f"run {run.folder} is not the run in {other.folder}; {way_out}")
        record = run.record
        evaluated_by = record.evaluated_by or record.environment
        made_by = [*(record.trained_by or [record.environment]), evaluated_by]
        for commit in (each.get("git") or UNKNOWN for each in made_by):
            if not anyway and (commit == UNKNOWN or commit.endswith("+changes")):
                way_out = "run it at a commit, or add --anyway"
                raise InputError(f"the commit of run {run.folder} is {commit}; {way_out}")
        if not anyway and run.folder.resolve() != (published / run.name).resolve():
            _check_notebook(run, evaluated_by["git"])
    for run in runs:
        yield _copy(run, published / run.name)


def _check_notebook(run: Run, commit: str) -> None:
    file = f"notebooks/{run.record.notebook}.ipynb"
    text = committed_text(project_folder(), commit, file)
    if text is None or code_digest(cells_of(text)) != run.facts.get("notebook_sha256"):
        fault = "has no" if text is None else "executed other code than that of"
        way_out = "commit it and run it again, or add --anyway"
        raise InputError(f"run {run.folder} {fault} {file} in commit {commit}; {way_out}")


def _identity(run: Run) -> tuple[Any, ...]:
    given = {name: x for name, x in run.record.parameters.items() if name != "output"}
    weights = run.record.model.get("weights_sha256")
    return run.record.notebook, run.record.dataset.get("fingerprint"), weights, given


def _copy(run: Run, target: Path) -> Path:
    if run.folder.resolve() == target.resolve():
        return target
    new, old = (target.with_name(f".{target.name}.{end}") for end in ("new", "old"))
    for path in (new, old):
        shutil.rmtree(path, ignore_errors=True)
    new.mkdir(parents=True)
    for name in PUBLISHED:
        if (run.folder / name).exists():
            shutil.copy2(run.folder / name, new)
    kept = run.record.parameters | {"output": f"reports/published/{run.name}"}
    _without_paths(new / NOTEBOOK, kept)
    export_page(new / NOTEBOOK, new / PAGE)
    facts = run.facts
    facts["parameters"] = {name: kept.get(name, x) for name, x in facts["parameters"].items()}
    Run(new).write_facts(facts)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    return target


def _without_paths(notebook: Path, kept: Mapping[str, Any]) -> None:
    """Replace the paths in an executed notebook by the values in its record."""
    text = notebook.read_text("utf-8")
    given = json.loads(text)["metadata"].get("papermill", {}).get("parameters", {})
    for name, old in given.items():
        new = kept.get(name)
        if isinstance(old, str) and isinstance(new, str) and old != new:
            marks = '"{}": "{}"', '{} = \\"{}\\"'
            for mark, *both in zip(marks, written(old), written(new), strict=True):
                text = text.replace(*(mark.format(name, each) for each in both))
            if Path(old).is_absolute():  # then an output with this text means this path
                # Not within a longer path, or within the text of a picture.
                whole = rf"(?<![\w+/.-]){re.escape(old)}(?![\w+-]|\.\w)"
                text = re.sub(whole, lambda _, new=new: new, text)
    write_atomically(notebook, text)
