import json
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from cifar_utils.evaluation import Scores

DONE = {"outcome": "finished", "ended": "2026-11-21T04:36:00+00:00"}


@pytest.fixture(scope="session")
def write_run(make_record):
    """Write a run's folder: its record, ``run.json`` and, where cells are given, its notebook."""

    def write(
        folder: Path,
        *cells,
        dataset="digits",
        architecture="tiny",
        top1=0.5,
        validation=(0.3, 0.5),
        parameters=None,
        notebook="01_tiny",
        classes="abcdef",
        train=60.0,
        data=(),
        trials=(),
        trained_by=(),
        **facts,
    ) -> Path:
        folder.mkdir(parents=True)
        test = {"n": 1000, "top1": top1, "top1_interval": [top1 - 0.01, top1 + 0.01]}
        make_record(
            run=folder.name,
            notebook=notebook,
            parameters=parameters or {},
            dataset={"name": dataset, "test": 1000} | dict(data),
            model={"architecture": architecture, "parameters": 15636, "flops": 1_000_000},
            environment={"processor": "a processor"},
            seconds={"train": train, "total": train + 5},
            history=[
                {"epoch": epoch, "loss": 1.0, "val_accuracy": accuracy}
                for epoch, accuracy in enumerate(validation, 1)
            ],
            best_epoch=len(validation),
            scores={"test": test | {"per_class": dict.fromkeys(classes, 0.5)}},
            trials=list(trials),
            trained_by=list(trained_by),
        ).write(folder)
        identity = {"notebook": notebook, "parameters": {}, "notebook_sha256": ""}
        (folder / "run.json").write_text(json.dumps(identity | (facts or DONE)))
        if cells:
            nbformat.write(new_notebook(cells=list(cells)), folder / "notebook.ipynb")
        return folder

    return write


@pytest.fixture(scope="session")
def write_predicted():
    """Write what a run said of its test images: labels and classes, each a sequence of numbers."""

    def write(folder: Path, labels, classes, names="abcdef") -> None:
        probabilities = np.eye(len(names), dtype=np.float32)[list(classes)]
        Scores(tuple(names), np.array(labels), probabilities).write(folder)

    return write


@pytest.fixture(scope="session")
def report_cells():
    """The cells of a small report: headings, folded code, a figure, a wide table, parameters."""
    from matplotlib.figure import Figure

    from cifar_utils.plots import CaptionedFigure

    figure = Figure(figsize=(7.5, 4))
    figure.add_subplot().plot([1, 2])
    html = CaptionedFigure(figure, "Loss by epoch.", "Loss falls to 0.2.")._repr_html_()
    heads = "".join(f"<th>{head}</th>" for head in ("", "top-1", "top-5", "loss (nats)", "epochs"))
    row = "<tr><th>this run</th><td>88.49% (87.8 to 89.1%)</td><td>—</td><td>0.37</td><td>2</td>"
    table = f'<table class="dataframe"><thead><tr>{heads}</tr></thead><tbody>{row}</tr></table>'

    def code(source, html=None, **metadata):
        outputs = [new_output("execute_result", {"text/html": html})] if html else []
        return new_code_cell(source, execution_count=1, outputs=outputs, metadata=metadata)

    def cells(note="a note"):
        return [
            new_markdown_cell("# How good?\n\nA question.\n\n## The loss"),
            code(f"note: str = {note!r}  # what is noted", tags=["parameters"]),
            code(
                "plot_a_line_that_is_rather_long(of_many, arguments, and_more, and_more) # " * 2,
                html,
            ),
            new_markdown_cell("## Reported against measured\n\n### In figures"),
            code("compare()", table),
        ]

    return cells
