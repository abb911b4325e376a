import os
import subprocess
import sys

import pytest

from cifar_utils import ONEDNN, backend
from cifar_utils.backend import choose_precision, keras


@pytest.mark.parametrize(
    ("library", "gpus", "processor", "expected"),
    [
        ("tensorflow", [], True, "mixed_bfloat16"),
        ("tensorflow", [], False, "float32"),
        ("tensorflow", [8.0, 9.0], False, "mixed_bfloat16"),
        ("tensorflow", [7.5], True, "float32"),
        ("tensorflow", [9.0, 7.5], True, "float32"),
        ("jax", [], True, "float32"),
        ("jax", [8.9], False, "mixed_bfloat16"),
        ("torch", [], True, "float32"),
    ],
)
def test_auto_is_bfloat16_where_the_hardware_computes_in_it(
    monkeypatch, library, gpus, processor, expected
):
    monkeypatch.setattr(keras.backend, "backend", lambda: library)
    monkeypatch.setattr(backend, "gpu_capabilities", lambda: gpus)
    monkeypatch.setattr(backend, "processor_has_bfloat16", lambda: processor)
    assert choose_precision() == choose_precision("auto") == expected
    assert choose_precision("float32") == "float32"
    assert choose_precision("mixed_bfloat16") == "mixed_bfloat16"


@pytest.mark.parametrize(
    ("first", "value", "told", "found"),
    [
        ("cifar_utils", None, False, "on"),
        ("cifar_utils", "0", False, "off"),
        ("keras", None, True, "default"),
        ("keras", "1", False, "on"),
    ],
)
def test_a_tensorflow_without_onednn_is_told(first, value, told, found):
    script = (
        f"import {first}, cifar_utils\n"
        "from cifar_utils.provenance import describe_environment\n"
        "print(describe_environment('float32')['onednn'])"
    )
    names = os.environ.keys() - {ONEDNN, "KERAS_BACKEND"}
    variables = {name: os.environ[name] for name in names} | ({ONEDNN: value} if value else {})
    done = subprocess.run(
        [sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == found
    assert ("import cifar_utils first" in done.stderr) == told


def test_an_unknown_precision_is_one_line(refused):
    with refused("unknown precision 'float31'; did you mean 'float32'?"):
        choose_precision("float31")
