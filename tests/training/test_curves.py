"""The curves that a cell shows while it trains."""

import xml.etree.ElementTree as ET

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from cifar_utils.training.curves import draw_curves

SVG = "{http://www.w3.org/2000/svg}"
ROWS = [
    {"epoch": 1, "loss": 2.0, "accuracy": 0.25, "val_loss": 2.5, "val_accuracy": 0.0},
    {"epoch": 2, "loss": 1.0, "accuracy": 0.5, "val_loss": 1.5, "val_accuracy": 0.75},
]


def test_curves_are_drawn_to_the_epochs_done_and_say_their_last_values():
    drawn = ET.fromstring(draw_curves(ROWS, 3))
    assert drawn.get("aria-label") == "Loss and accuracy of 2 of 3 epochs"
    lines = [line.get("points").split() for line in drawn.iter(f"{SVG}polyline")]
    assert [len(points) for points in lines] == [2] * 4
    ends = {float(points[-1].split(",")[0]) for points in lines}
    assert ends == {(52 + 348) / 2}, "the second of three epochs is in the middle"
    texts = ["".join(text.itertext()) for text in drawn.iter(f"{SVG}text")]
    assert "losstraining 1validation 1.5" in texts
    assert "accuracytraining 50.0%validation 75.0%" in texts
    assert {"2.5", "1", "0.0%", "75.0%", "3 epochs"} <= {*texts}


@pytest.mark.parametrize("epochs", [1, 300])
def test_any_number_of_epochs_is_drawn_within_the_frame(epochs):
    rows = [{"epoch": e, "loss": 1 / e, "accuracy": 0.5} for e in range(1, epochs + 1)]
    drawn = ET.fromstring(draw_curves(rows, epochs))
    for line in drawn.iter(f"{SVG}polyline"):
        for point in line.get("points").split():
            x, y = map(float, point.split(","))
            assert 52 <= x <= 348
            assert 40 <= y <= 196


def test_what_is_missing_or_no_number_is_left_out():
    rows = [ROWS[0], {**ROWS[1], "loss": float("nan"), "val_loss": None}, {"epoch": 3}]
    svg = draw_curves(rows, 3)
    assert "nan" not in svg
    assert len(ET.fromstring(svg).findall(f".//{SVG}polyline")) == 4
    assert "polyline" not in draw_curves([{"epoch": 1}], 1)


SCRIPT = """\
from cifar_utils.data import load_dataset
from cifar_utils.models import ARCHITECTURES, build_model
from cifar_utils.training import fit
ARCHITECTURES["tiny"] = tiny
data = load_dataset("digits", train_limit=100, test_limit=10)
"""
TRAIN = """\
model = build_model("tiny", data)
fit(model, data.train, data.validation, epochs=3, batch_size=30)
"""


@pytest.fixture(scope="module")
def kernel(tiny_source):
    manager = KernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    manager.start_kernel()
    client = manager.blocking_client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=120)
        assert run(client, tiny_source + SCRIPT, False) == []
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def run(client, code, allow_stdin):
    """What a cell shows, in the order in which it shows it."""
    messages = []
    reply = client.execute_interactive(
        code, allow_stdin=allow_stdin, output_hook=messages.append, timeout=300
    )
    assert reply["content"]["status"] == "ok", reply["content"]
    kinds = {"display_data", "update_display_data", "execute_result", "stream"}
    return [
        (m["msg_type"], m["content"].get("data", m)) for m in messages if m["msg_type"] in kinds
    ]


def test_a_watched_cell_shows_curves_while_it_trains_and_none_after_it(kernel):
    shown = run(kernel, TRAIN, allow_stdin=True)
    assert [kind for kind, _ in shown].count("display_data") == 1
    updates = [data for kind, data in shown if kind == "update_display_data"]
    drawn = [data for data in updates if "<svg" in data.get("text/html", "")]
    assert drawn
    assert all(data["text/plain"].startswith("epoch ") for data in drawn)
    assert "Loss and accuracy of 1 of 3 epochs" in drawn[0]["text/html"]
    assert drawn[0]["text/plain"] in drawn[0]["text/html"]
    assert updates[-1] == {"text/plain": ""}
    kind, result = shown[-1]
    assert kind == "execute_result"
    assert "3 epochs in" in result["text/html"]


def test_a_cell_that_nobody_watches_shows_a_line_alone(kernel):
    shown = run(kernel, TRAIN, allow_stdin=False)
    updates = [data for kind, data in shown if kind == "update_display_data"]
    assert len(updates) >= 4
    assert {key for data in updates for key in data} == {"text/plain"}
    assert updates[-1] == {"text/plain": ""}
