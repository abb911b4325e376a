"""Few images in the layout of the official archives, a site that serves them, and a refusal."""

import io
import struct
import tarfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from cifar_utils.data import DATASETS
from cifar_utils.data.cifar import LABELS


@pytest.fixture(autouse=True)
def nothing_around(tmp_path, monkeypatch):
    """No data of this machine, and an empty Keras cache."""
    monkeypatch.delenv("CIFAR_DATA_DIR", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def refused(refused, tmp_path):
    """The block raises an InputError of one line with all of these words and leaves no file."""

    @contextmanager
    def check(*words):
        before = set(tmp_path.rglob("*"))
        with refused(*words):
            yield
        new = {p for p in set(tmp_path.rglob("*")) - before if p.is_file() and p.stat().st_size}
        assert {p.name for p in new} <= {"keras.json"}

    return check


def python2_pickle(value):
    """As the official files are written: protocol 2, with the byte strings of Python 2."""
    minus_one = b"J\xff\xff\xff\xff"
    uint8 = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNN" + minus_one * 2 + b"K\x00tb"

    def written(v):
        if isinstance(v, bytes):
            short = len(v) < 256
            return (b"U" + bytes([len(v)]) if short else b"T" + struct.pack("<i", len(v))) + v
        if isinstance(v, int):
            return b"J" + struct.pack("<i", v)
        if isinstance(v, list | tuple):
            inner = b"".join(map(written, v))
            return b"](" + inner + b"e" if isinstance(v, list) else b"(" + inner + b"t"
        if isinstance(v, dict):
            return b"}(" + b"".join(written(k) + written(w) for k, w in v.items()) + b"u"
        order = b"\x88" if v.flags.f_contiguous and not v.flags.c_contiguous else b"\x89"
        array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
        state = b"(K\x01" + written(v.shape) + uint8 + order + written(v.tobytes("A")) + b"tb"
        return array + state

    return b"\x80\x02" + written(value) + b"."


def contents(name, per_class):
    """What each file of an archive unpickles to, and the images and labels in it, by file."""
    archive = DATASETS[name]
    (meta, *batches), label = archive.members, LABELS[archive.classes]
    rng = np.random.default_rng(0)
    files, made = {}, {}
    for member in batches:
        fine = rng.permutation(np.repeat(np.arange(archive.classes), per_class))
        images = rng.integers(0, 256, (len(fine), 32, 32, 3), np.uint8)
        planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(-1, 3072)
        files[member] = {b"data": planes, label + b"s": fine.tolist(), b"filenames": [b"a.png"]}
        if name == "cifar100":
            files[member][b"coarse_labels"] = (fine % 20).tolist()
        made[member] = images, fine
    files[meta] = {label + b"_names": [b"class %d" % i for i in range(archive.classes)]}
    if name == "cifar100":
        files[meta][b"coarse_label_names"] = [b"coarse %d" % i for i in range(20)]
    return files, made


def packed(files, folder):
    """A .tar.gz of these files (bytes by name), and of members made beforehand."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        for name, data in files.items():
            member = (
                name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(f"{folder}/{name}")
            )
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return target.getvalue()


@pytest.fixture
def official(tmp_path):
    """Write a dataset as a folder or an archive; return its path and the images in it."""

    def write(
        name="cifar10", per_class=4, *, changes=None, pack=False, dump=python2_pickle, at=None
    ):
        files, made = contents(name, per_class)
        for member, change in (changes or {}).items():
            files[member] = change(files.get(member)) if callable(change) else change
        data = {
            n: f if isinstance(f, bytes) else dump(f) for n, f in files.items() if f is not None
        }
        archive, at = DATASETS[name], at or tmp_path / "data"
        at.mkdir(parents=True, exist_ok=True)
        if pack:
            path = at / archive.file
            path.write_bytes(packed(data, archive.folder))
            return path, made
        path = at / archive.folder
        path.mkdir()
        for member, content in data.items():
            (path / member).write_bytes(content)
        return path, made

    return write


@pytest.fixture
def site():
    """A local site: what it serves, how it misbehaves, and how often it was asked."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked += 1
            if server.status:
                self.send_error(server.status)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(server.content)))
            self.end_headers()
            self.wfile.write(server.content[: server.cut])
            server.begun.set()
            server.go_on.wait()

        def log_message(self, *_):
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.content, server.cut, server.asked, server.status = b"", None, 0, None
    server.begun, server.go_on = threading.Event(), threading.Event()
    server.go_on.set()
    server.url = f"http://127.0.0.1:{server.server_port}/cifar-10-python.tar.gz"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.go_on.set()
    server.shutdown()
    server.server_close()
