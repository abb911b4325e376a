"""What benchmarks print; not how long anything takes."""

import re
import subprocess
import sys

import pytest

from cifar_utils.reporting.notebooks import project_folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "lines"),
    [
        ("augmentation", ["--batch=4", "--rounds=1"], ["crop(4)", "all together, in whole steps"]),
        ("speed_record", ["--batch=4", "--steps=1"], ["fast layers", "Keras's own layers"]),
    ],
)
def test_a_benchmark_names_the_machine_and_prints_a_line_for_each_way(name, options, lines):
    script = project_folder() / "benchmarks" / f"{name}.py"
    done = subprocess.run(
        [sys.executable, script, *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.match(r".+, \d+ cores?, tensorflow [\d.]+, ", done.stdout)
    for line in lines:
        assert re.search(rf"^{re.escape(line)} +-?[\d.]+ ", done.stdout, re.MULTILINE)
