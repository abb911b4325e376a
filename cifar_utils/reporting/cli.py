"""The command line, ``cifar-reports``: a thin layer over reports, series and data."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import click

from cifar_utils import __version__
from cifar_utils.choices import REGISTRIES
from cifar_utils.errors import InputError, known_name, short
from cifar_utils.files import CHECKPOINTS, NOTEBOOK, PAGE
from cifar_utils.reporting.notebooks import (
    find_notebook,
    list_notebooks,
    plan_run,
    project_folder,
    read_options,
    read_parameters,
    read_question,
)
from cifar_utils.reporting.terminal import interruptible, new_console, print_table, short_path
from cifar_utils.runs.folder import REPLACEABLE, Run, RunningError, Status, find_runs, load_run
from cifar_utils.text import compact, percent

INTERRUPTED = 130  # as in a shell
PATH = click.Path(path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


def output_option(meaning: str) -> Callable[[Callable], Callable]:
    """The option --output. It refuses an address, without repeating it: it may hold a secret."""

    def read(context: click.Context, option: click.Parameter, value: str | None) -> Path | None:
        if value and "://" in value:
            way_out = "mount it, or share it, and give the folder's path"
            raise InputError(f"--output takes a folder, not an address; {way_out}")
        return Path(value) if value else None

    return click.option("--output", callback=read, metavar="DIR", help=meaning)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def commands() -> None:
    """Run notebooks about CIFAR and read them as pages.

    \b
    Examples:
      cifar-reports list                         the notebooks and their questions
      cifar-reports parameters 1                 the parameters of 01_vgg_like
      cifar-reports options architecture         the networks
      cifar-reports run 1 -p epochs=20           one run; ends in a page
      cifar-reports series                       all runs of the quick profile
    """  # noqa: D301


@commands.command()
@click.argument("notebook")
@click.option("-p", "given", multiple=True, metavar="NAME=VALUE", help="Set a parameter.")
@output_option("The run's folder.")
@click.option("--force", is_flag=True, help="Run afresh, replacing the run that the folder holds.")
def run(notebook: str, given: tuple[str, ...], output: Path | None, force: bool) -> int:
    """Execute a notebook and export its page.

    NOTEBOOK is a name (01_vgg_like), its number (1), a part of it (vgg) or a path.

    The run's folder gets notebook.ipynb (as executed), report.html and record.json. Without
    --output it is reports/<notebook>-<dataset>-<architecture>-s<seed> in the project, and a digest
    where other parameters are not the notebook's own. A finished run is not repeated; if its code
    or data have changed since, it needs --force. A stopped run goes on from its last checkpoint.

    \b
    Examples:
      cifar-reports run 01
      cifar-reports run 02 -p dataset=cifar10 -p epochs=20 --output reports/mine
      cifar-reports run resnet -p train_limit=5000 -p learning_rate=0.1 --force

    Exit status: 0 done, or run by another process; 1 failed, 2 bad input, 130 Ctrl-C.
    """  # noqa: D301
    for each in given:
        if "=" not in each:
            raise InputError(f"-p is {short(each)}; write it as NAME=VALUE")
    values = dict(each.split("=", 1) for each in given)
    planned = plan_run(find_notebook(notebook), values, output)
    from cifar_utils.reporting.execute import execute
    from cifar_utils.reporting.progress import shown_progress

    try:
        with interruptible(), shown_progress(new_console(), [planned.name]) as show:
            status = execute(
                planned, partial(show, planned.name), afresh=REPLACEABLE if force else ()
            )
    except KeyboardInterrupt:
        if Run(planned.folder).record:
            click.echo(f"interrupted; the run in {short_path(planned.folder)} is kept", err=True)
            return INTERRUPTED
        return _interrupted(force)
    _tell(planned.name, planned, status, " before; --force runs it again")
    if status.word != "running":
        click.echo(f"page: {short_path(planned.page)}")
    return int(status.word == "failed")


@commands.command("list")
def list_command() -> None:
    """List the notebooks and their questions."""
    rows = [(name, read_question(path)) for name, path in list_notebooks().items()]
    if not rows:
        where = short_path(project_folder())
        raise InputError(f"no notebooks in {where}; change to the folder of notebooks/")
    print_table(("notebook", "question"), rows)


@commands.command()
@click.argument("notebook")
def parameters(notebook: str) -> None:
    """Show the parameters of a notebook.

    The option -p of run sets them. The table gives name, type, default, allowed values and meaning.
    """
    rows = [
        (p.name, p.type, repr(p.default), f"{p.allowed}: {p.meaning}".removeprefix(": "))
        for p in read_parameters(find_notebook(notebook)).values()
    ]
    print_table(("name", "type", "default", "meaning"), rows)


@commands.command()
@click.argument("kind", metavar="KIND", type=click.Choice(list(REGISTRIES)))
@click.argument("name", required=False)
def options(kind: str, name: str | None) -> None:
    """List architectures and other choices, or options of one.

    KIND is what is chosen, such as architecture. NAME is one of its choices.

    \b
    Examples:
      cifar-reports options schedule           the schedules, and their meaning
      cifar-reports options schedule cosine    its options, as in "cosine(0.1)"
    """  # noqa: D301
    known = REGISTRIES[kind]
    if name is None:
        rows = [(each, read_options(kind, each)[0].partition("\n")[0]) for each in known]
        print_table((kind, "what it is"), rows)
    else:
        text, rows = read_options(kind, name)
        click.echo(f"{text}\n")
        print_table(("option", "type", "default", "meaning"), rows)


@commands.command()
@click.argument("source", metavar="NOTEBOOK_OR_RUN_FOLDER", type=PATH)
def export(source: Path) -> None:
    """Export the page of an executed notebook or of a run.

    \b
    Examples:
      cifar-reports export reports/mine      writes reports/mine/report.html
      cifar-reports export executed.ipynb    writes executed.html beside it
    """  # noqa: D301
    from cifar_utils.reporting.export import export_page

    if source.is_dir():
        notebook, page = source / NOTEBOOK, source / PAGE
    else:
        notebook, page = source, source.with_suffix(".html")
    click.echo(f"page: {short_path(export_page(notebook, page))}")


@commands.command()
@click.argument("file", required=False, type=PATH)
@click.option("--profile", help="The list of runs in the file. Default: its only one, or quick.")
@click.option("--only", multiple=True, metavar="GLOB", help="Runs whose name fits; repeatable.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Runs at once. Default: one for each GPU, or for every two cores.",
)
@click.option("--scheduler", metavar="ADDRESS", help="Use the workers of this dask scheduler.")
@output_option("The folder for the runs' folders.")
@click.option("--force", is_flag=True, help="Run all of them afresh.")
@click.option("--dry-run", is_flag=True, help="Show the status of each run, and run nothing.")
def series(
    file: Path | None,
    profile: str | None,
    only: tuple[str, ...],
    jobs: int | None,
    scheduler: str | None,
    output: Path | None,
    force: bool,
    dry_run: bool,
) -> int:
    """Run a series of notebooks, and make its site.

    FILE lists the runs; the default is notebooks/series.yaml. Several runs go on at once. Finished
    runs are skipped. A run whose parameters, notebook, code or data have changed since is run
    afresh. A failed run does not affect the others. It is tried once more if its kernel died or its
    time ran out. The runs' folders go to --output, by default reports/<profile> in the project.
    With --scheduler, all machines must share that folder.

    \b
    Examples:
      cifar-reports series --profile cpu --dry-run
      cifar-reports series mine.yaml --only "resnet*" --jobs 2
      cifar-reports series --scheduler tcp://10.0.0.1:8786 --output /mnt/reports

    Exit status: 0 none failed, 1 some failed (the last line counts them), 2 bad input, 130 Ctrl-C.
    """  # noqa: D301
    from cifar_utils.reporting.series_file import read_series, select

    if jobs and scheduler:
        raise InputError("--jobs is for this machine's own workers; leave it or --scheduler out")
    runs = read_series(file or project_folder() / "notebooks" / "series.yaml", profile, output)
    folder = runs[0].folder.parent
    runs = select(runs, only)
    if dry_run:
        rows = []
        for run in runs:
            word, why, *_ = run.status()
            if force and word in REPLACEABLE:
                word, why = "stale", "--force runs it afresh"
            rows.append((run.name, word, why))
        print_table(("run", "status", "why"), rows)
        return 0
    from cifar_utils.reporting.progress import shown_progress
    from cifar_utils.reporting.series import run_series

    failed, names = 0, [run.name for run in runs]
    try:
        with interruptible(), shown_progress(new_console(), names) as show:
            ended = run_series(runs, show, force=force, jobs=jobs, scheduler=scheduler)
            with contextlib.closing(ended):
                for number, (run, status) in enumerate(ended, 1):
                    failed += status.word == "failed"
                    _tell(f"[{number}/{len(runs)}] {run.name}", run, status, " before, skipped")
    except KeyboardInterrupt:
        return _interrupted(force)
    if folder.is_dir():
        from cifar_utils.reporting.site import build_index  # takes seconds; the runs go first

        try:
            click.echo(f"index: {short_path(build_index(folder))}")
        except OSError as error:
            where = short_path(Path(error.filename or folder))
            click.echo(f"no index: {where} can't be written ({error.strerror})", err=True)
        except InputError as error:  # in notes.yaml
            click.echo(f"no index: {error}", err=True)
    if failed:
        click.echo(f"{failed} of {len(runs)} runs failed", err=True)
    return int(failed > 0)


def _tell(name: str, run: Run, status: Status, before: str) -> None:
    """Print how a run ended, in a line."""
    if status.word == "failed":
        details = "".join(f"\n    {line}" for line in status.details)
        click.echo(f"{name} failed: {status.why}{details}", err=True)
    elif status.word == "running":
        click.echo(f"{name}: {status.why}")
    else:
        click.echo(f"{name}: {_results(run.folder)}done{before if status.word == 'done' else ''}")


@commands.command()
@click.argument("folder", type=FOLDER)
def site(folder: Path) -> None:
    """Make the site of all runs below FOLDER.

    It is index.html and the runs' pages. A page is exported again if its notebook, its record or
    the template has changed. Pages are linked with one another. Those below a folder with an index
    of its own stay as they are. Nothing is executed.
    """
    from cifar_utils.reporting.site import build_index

    click.echo(f"index: {short_path(build_index(folder, say=click.echo))}")


@commands.command()
@click.argument("folder", required=False, type=FOLDER)
@click.option("--dataset", metavar="NAME", help="Runs on one dataset only.")
@click.option("--csv", is_flag=True, help="Print CSV instead.")
def leaderboard(folder: Path | None, dataset: str | None, csv: bool) -> None:
    """Show finished runs, the best first within a dataset.

    They are those below FOLDER, by default reports/published in the project. Accuracy is top-1 on
    the test images with its 95% interval. The column "reported" has the best figure that
    others report for a network of this name on the dataset. CSV has more columns; its values are
    plain fractions and seconds.

    \b
    Examples:
      cifar-reports leaderboard
      cifar-reports leaderboard reports/quick --dataset digits
      cifar-reports leaderboard --csv > runs.csv
    """  # noqa: D301
    from cifar_utils.runs.leaderboard import in_words, tabulate

    folder = folder or project_folder() / "reports" / "published"
    runs = [run for run in find_runs(folder) if run.record]
    if not runs:
        raise InputError(
            f"no finished run below {short_path(folder)}; make some: cifar-reports series"
        )
    board = tabulate(runs)
    if dataset is not None:
        known_name("unknown dataset", dataset, sorted(set(board["dataset"])))
        board = board[board["dataset"] == dataset]
    if csv:
        click.echo(board.to_csv(index=False), nl=False)
        return
    names = ("run", "dataset", "architecture")
    figures = ("top1", "interval", "reported", "parameters", "train_seconds", "date")
    words = in_words(board, (*names, *figures))
    print_table(words.columns, words.to_numpy().tolist())


@commands.command()
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True, type=PATH)
def compare(runs: tuple[Path, ...]) -> None:
    """Compare runs, each with the first one.

    RUN is a run's folder. A table shows the parameters that differ, and the scores. Runs that were
    tested on the same images get McNemar's exact test of their top-1 accuracies, with the
    difference.
    """
    from cifar_utils.runs.compare import compare_runs

    comparison = compare_runs(runs)
    words = comparison.words.reset_index()
    print_table(words.columns, words.to_numpy().tolist())
    click.echo("\n".join(comparison.findings))


@commands.command()
@click.argument("run", type=PATH)
@click.argument("pictures", metavar="PICTURE...", nargs=-1, required=True, type=PATH)
@click.option(
    "--top",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    metavar="N",
    help="Classes to show.",
)
@click.option("--csv", is_flag=True, help="Print CSV instead.")
def predict(run: Path, pictures: tuple[Path, ...], top: int, csv: bool) -> None:
    """Classify pictures by the model of a run.

    RUN is the run's folder. PICTURE is a PNG, JPEG, WebP or BMP file of any size up to 178
    megapixels, or a folder of such files. The table has the most probable classes of each picture.

    \b
    Examples:
      cifar-reports predict reports/02_resnet-cifar10-resnet20-s0 cat.jpg
      cifar-reports predict reports/mine holiday/ --top 1 --csv > holiday.csv
    """  # noqa: D301
    found = load_run(run).predict(*pictures, top=top)
    if csv:
        click.echo(found.to_csv(index=False), nl=False)
        return
    words = found.assign(probability=found["probability"].map(percent))
    print_table(words.columns, words.to_numpy().tolist())


@commands.command()
@click.argument("folder", required=False, type=FOLDER)
@click.option("--yes", is_flag=True, help="Delete them. Without it they are only listed.")
def clean(folder: Path | None, yes: bool) -> int:
    """Delete the checkpoints of the finished runs below FOLDER.

    Without FOLDER it is reports/ in the project. Finished runs keep their record, page, model and
    predictions. Runs that can go on keep their checkpoints, and so do those of papermill and
    JupyterLab, of which no file tells whether they have ended.

    Exit status: 0 done, 1 some could not be deleted.
    """
    total, left = 0, 0
    for run in find_runs(folder or project_folder() / "reports"):
        paths = [run.folder / name for name in CHECKPOINTS]
        paths = [path for path in paths if path.is_dir() and not path.is_symlink()]
        if not run.record or not paths:
            continue
        try:
            # A list of them needs no lock, which takes a folder that can be written.
            with contextlib.suppress(RunningError), run.locked() if yes else nullcontext():
                for path in paths if run.facts.get("outcome") == "finished" else []:
                    files = [each for each in path.rglob("*") if each.is_file()]
                    size = sum(each.lstat().st_size for each in files)
                    if yes:
                        shutil.rmtree(path)
                    total += size
                    click.echo(f"{compact(size):>7}B  {short_path(path)}")
        except OSError as error:
            left += 1
            told = f"its checkpoints can't be {'deleted' if yes else 'read'} ({error.strerror})"
            click.echo(f"{short_path(run.folder)}: {told}", err=True)
    click.echo(f"{compact(total)}B {'deleted' if yes else 'to delete; --yes deletes it'}")
    return int(left > 0)


@commands.command("publish")
@click.argument("runs", metavar="[RUN]...", nargs=-1, type=PATH)
@click.option("--anyway", is_flag=True, help="Also publish runs of no known commit or notebook.")
def publish_command(runs: tuple[Path, ...], anyway: bool) -> None:
    """Publish finished runs, and rebuild the site.

    They are copied to reports/published. RESULTS.md and README's table are rebuilt too. A published
    run keeps record.json, run.json, notebook.ipynb, report.html and predicted.npz. It replaces a
    published run of its name, notebook and parameters. A run is refused if its commit is unknown,
    or if its notebook or code had uncommitted changes. Without RUN nothing is copied.
    """
    from cifar_utils.reporting.publish import publish
    from cifar_utils.reporting.results import write_results
    from cifar_utils.reporting.site import build_index

    root = project_folder()
    for folder in publish(runs, root / "reports" / "published", anyway):
        click.echo(f"published: {short_path(folder)}")
    click.echo(f"index: {short_path(build_index(root / 'reports' / 'published', say=click.echo))}")
    for written in write_results(root):
        click.echo(f"results: {short_path(written)}")


@commands.group()
def data() -> None:
    """Fetch datasets."""


@data.command()
@click.argument("name")
def fetch(name: str) -> None:
    """Download dataset NAME if it is missing, check it, and print its path."""
    from cifar_utils.data import fetch as fetch_dataset

    click.echo(f"{name}: {short_path(fetch_dataset(name))}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns
    -------
    int
        The exit status: 0, 1 (a run failed), 2 (bad input) or 130 (Ctrl-C).

    """
    os.environ.pop("MPLBACKEND", None)  # a kernel's figures are inline
    for stream in (sys.stdout, sys.stderr):  # a terminal may not have all letters
        stream.reconfigure(errors="replace")
    try:
        arguments = sys.argv[1:] if arguments is None else arguments
        return commands.main(arguments or ["--help"], "cifar-reports", standalone_mode=False) or 0
    except InputError as error:
        click.echo(str(error), err=True)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
    except click.UsageError as error:
        # Click names no command where an option lacks its value.
        command = error.ctx.command_path if error.ctx else f"cifar-reports {arguments[0]}"
        message = " ".join(error.format_message().split()).rstrip(".")
        click.echo(f"{message}; see {command} --help", err=True)
    except OSError as error:
        click.echo(f"{error.filename or 'the system'}: {error.strerror or error}", err=True)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    return 2


def _interrupted(force: bool) -> int:
    same = "the same command without --force" if force else "the same command"
    click.echo(f"interrupted; {same} goes on from the last checkpoint", err=True)
    return INTERRUPTED


def _results(folder: Path) -> str:
    from cifar_utils.reporting.export import record_facts
    from cifar_utils.runs.record import read_record

    facts = record_facts(read_record(folder))
    told = [fact for fact in facts if fact[0].startswith("test") or fact[0] == "time"]
    return "".join(f"{label} {value}{detail and f' ({detail})'}, " for label, value, detail in told)


if __name__ == "__main__":
    sys.exit(main())
