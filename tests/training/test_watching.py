"""What a cell shows while it trains."""

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

SCRIPT = """\
from cifar_utils.data import load_dataset
from cifar_utils.models import ARCHITECTURES, build_model
from cifar_utils.plots import plot_history
from cifar_utils.training import fit
ARCHITECTURES["tiny"] = tiny
data = load_dataset("digits", train_limit=100, test_limit=10)
"""
TRAIN = """\
model = build_model("tiny", data)
fit(model, data.train, data.validation, epochs=3, batch_size=30, plot=plot_history)
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
    drawn = [data for data in updates if "<img" in data.get("text/html", "")]
    assert drawn
    assert all(data["text/plain"].startswith("epoch ") for data in drawn)
    assert "Learning curves of 1 epoch" in drawn[0]["text/html"]
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
