import contextlib
import gzip
import os
import pickle
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar_utils.data import load_dataset
from cifar_utils.data.archive import CIFAR10
from cifar_utils.data.cifar import read_cifar
from cifar_utils.errors import InputError


class Trap:
    """Unpickled without care, it makes a folder."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def python3_pickle(protocol):
    return lambda content: pickle.dumps(content, protocol=protocol)


def older_numpy(content):
    return pickle.dumps(content, protocol=2).replace(b"numpy._core.", b"numpy.core.")


@pytest.mark.parametrize(
    "options",
    [
        {},  # as Python 2 wrote it
        {"pack": True, "changes": {"SOURCE.txt": b"A re-packed copy.\nMore.\n"}},
        {"dump": python3_pickle(2)},
        {"dump": python3_pickle(4)},
        {"dump": older_numpy, "pack": True},
    ],
)
def test_every_official_layout_gives_the_images_as_they_were(official, options):
    path, made = official(**options)
    names, train, test, note = read_cifar(path, CIFAR10)
    assert names == tuple(f"class {i}" for i in range(10))
    assert train.images.dtype == np.uint8
    for part, members in ((train, CIFAR10.members[1:-1]), (test, CIFAR10.members[-1:])):
        np.testing.assert_array_equal(part.images, np.concatenate([made[m][0] for m in members]))
        np.testing.assert_array_equal(part.labels, np.concatenate([made[m][1] for m in members]))
    assert note == ("A re-packed copy." if "changes" in options else "")


def test_pixels_stored_column_first(official):
    column_first = lambda batch: batch | {b"data": np.asfortranarray(batch[b"data"])}  # noqa: E731
    path, made = official(changes={"test_batch": column_first})
    np.testing.assert_array_equal(read_cifar(path, CIFAR10)[2].images, made["test_batch"][0])


def test_cifar100_has_fine_and_coarse_labels(official, monkeypatch):
    path, made = official("cifar100", 2)
    monkeypatch.setenv("CIFAR_DATA_DIR", str(path))
    fine, coarse = (
        load_dataset(name, validation_fraction=0.0) for name in ("cifar100", "cifar100_coarse")
    )
    assert (len(fine.class_names), len(coarse.class_names)) == (100, 20)
    np.testing.assert_array_equal(fine.train.labels, made["train"][1])
    np.testing.assert_array_equal(coarse.train.labels, made["train"][1] % 20)


@pytest.mark.parametrize(
    ("member", "protocol", "pack"),
    [("data_batch_3", 0, False), ("data_batch_3", 2, True), ("batches.meta", 4, False)],
)
def test_a_pickle_that_would_execute_does_not(official, refused, tmp_path, member, protocol, pack):
    marker = tmp_path / "executed"
    trap = pickle.dumps({b"data": Trap(marker)}, protocol=protocol)
    path, _ = official(changes={member: trap}, pack=pack)
    with refused(path, member, "mkdir"):
        read_cifar(path, CIFAR10)
    assert not marker.exists()


def escaping(kind, tmp_path):
    member = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    if kind in ("../up", "absolute"):
        member.name = (
            str(tmp_path / "escaped") if kind == "absolute" else "cifar-10-batches-py/../../escaped"
        )
    else:
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return member


@pytest.mark.parametrize("kind", ["../up", "absolute", "symlink"])
def test_a_tar_member_that_would_escape_is_refused(official, refused, tmp_path, kind):
    path, _ = official(changes={escaping(kind, tmp_path): b""}, pack=True)
    with refused(path, "leads elsewhere"):
        read_cifar(path, CIFAR10)
    assert not list(tmp_path.rglob("escaped"))


def test_a_member_too_large_is_not_read(official, refused):
    path, _ = official(pack=True)
    huge = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    huge.size = 2**40
    path.write_bytes(gzip.compress(huge.tobuf(tarfile.GNU_FORMAT) + bytes(1024)))
    with refused("1,099,511,627,776"):
        read_cifar(path, CIFAR10)


def with_a_flipped_bit(data):
    """The archive with its pixels as they are, of which only a checksum tells that one changed."""
    stored = bytearray(gzip.compress(gzip.decompress(data), compresslevel=0))
    stored[len(stored) // 2] ^= 1
    return stored


DAMAGED = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: int(0.9 * len(data))],
    "without its last byte": lambda data: data[:-1],
    "a flipped bit": with_a_flipped_bit,
    "no archive": lambda data: b"not an archive",
    "no tar": lambda data: gzip.compress(b"not a tar" * 200),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_an_archive_that_is_not_what_it_should_be(official, refused, damage):
    path, _ = official(pack=True)
    path.write_bytes(damage(path.read_bytes()))
    with refused(path, "replace it"):
        read_cifar(path, CIFAR10)


def with_data(make):
    return lambda batch: batch | {b"data": make(batch[b"data"])}


def with_labels(*labels):
    return lambda batch: batch | {b"labels": [*labels, *batch[b"labels"][len(labels) :]]}


WRONG = {
    "no data": (lambda batch: {b"labels": batch[b"labels"]}, "no b'data'"),
    "fewer labels": (lambda batch: batch | {b"labels": [1, 2]}, "not as many"),
    "no images": (with_data(lambda data: data[:0]), "shape (0, 3072)"),
    "other shape": (with_data(lambda data: data[:, :3071].copy()), "shape (40, 3071)"),
    "objects": (with_data(lambda data: data.astype(object)), "not uint8"),
    "label too large": (with_labels(10), "0 to 10 for 10 classes"),
    "negative label": (with_labels(-1), "-1 to 9"),
    "fraction for a label": (with_labels(1.5), "whole numbers"),
    "labels of True": (lambda batch: batch | {b"labels": [True] * 40}, "whole numbers"),
    "no dict": (lambda batch: [1, 2], "a list"),
    "half a pickle": (lambda batch: pickle.dumps(batch, protocol=2)[:-1000], "remain"),
    "text": (lambda batch: b"<html>\n\nNot found</html>", "opcode b'<' unknown"),
    "missing": (None, "data_batch_2 missing"),
}


@pytest.mark.parametrize(("change", "words"), WRONG.values(), ids=WRONG)
def test_a_batch_that_is_not_what_it_should_be(official, refused, change, words):
    path, _ = official(changes={"data_batch_2": change}, dump=python3_pickle(4))
    with refused(path, "data_batch_2", words):
        read_cifar(path, CIFAR10)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([b"a", b"b"], "2 class names"),
        ([b"a"] * 10, "1 class names"),
        (["x"], "no list of bytes"),
        ([b"x" * 101, *(b"%d" % i for i in range(9))], "more than 100 bytes"),
    ],
)
def test_wrong_class_names(official, refused, names, words):
    meta = {b"label_names": names}
    path, _ = official(changes={"batches.meta": meta}, dump=python3_pickle(2))
    with refused(path, "batches.meta", words):
        read_cifar(path, CIFAR10)


def nested(kind, depth):
    """The opcodes of a list or tuple of ten that hold ten each, and so on: 10**depth leaves."""
    opcodes = b"Nq\x00"
    for level in range(depth):
        ten = b"h%c" % level * 10
        opcodes += b"](" + ten + b"e" if kind is list else b"(" + ten + b"t"
        opcodes += b"q%c" % (level + 1)
    return opcodes


def small_batch(shape=b"K\x01M\x00\x0c\x86", kind=b"U\x02u1", labels=b"](K\x01e"):
    """A pickled batch of no pixels, of these opcodes."""
    dtype = b"cnumpy\ndtype\n(" + kind + b"K\x00K\x01tR"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    data = array + b"(K\x01" + shape + dtype + b"\x89U\x00tb"
    return b"\x80\x02}(U\x04data" + data + b"U\x06labels" + labels + b"u."


def zeros_after(header):
    """A .tar.gz of a few MB: a header, and 3 GB of zeros."""
    return gzip.compress(header) + 48 * gzip.compress(bytes(2**26), 1)


def header_of(kind):
    member = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    member.type, member.size = kind, 3 * 10**9
    return member.tobuf(tarfile.USTAR_FORMAT)


def expanding():
    """Contents that are small on the disk and huge in memory, and what they are refused for."""
    text = b"X\x00\x00\x00\x01" + b"a" * 2**24  # 16 MiB
    return {
        "tuples for a key": (b"\x80\x02}" + nested(tuple, 40) + b"Ns.", "more than once"),
        "a far place in the memo": (b"\x80\x02Nr\x00\x00\x00\x08.", "134,217,728"),
        "a text encoded again and again": (
            b"\x80\x02(c_codecs\nencode\nq\x00" + text + b"q\x01" + 99 * b"h\x00(h\x01Ntre" + b"t.",
            "more than once",
        ),
        "many empty lists": (b"\x80\x02(" + b"]" * 10**8 + b"t.", "opcodes"),
        "a long name for a class": (b"\x80\x02c" + bytes(2**28), "newline"),
        "a header of pax": (zeros_after(header_of(tarfile.XHDTYPE)), "3,000,000,000 bytes"),
        "zeros after the end": (zeros_after(bytes(1024)), "after the end"),
        "headers without end": (
            gzip.compress(tarfile.TarInfo("a").tobuf(tarfile.USTAR_FORMAT) * 2**20),
            "too much",
        ),
    }


@pytest.mark.slow
def test_what_expands_is_refused_in_little_memory_and_time(tmp_path):
    contents = expanding()
    for name, (content, _) in contents.items():
        packed = content.startswith(b"\x1f\x8b")
        path = tmp_path / name / (CIFAR10.file if packed else "cifar-10-batches-py/batches.meta")
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    code = """\
import os, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
from cifar_utils.data import load_dataset
for folder in sys.argv[1:]:
    try:
        os.environ["CIFAR_DATA_DIR"] = folder
        load_dataset("cifar10")
    except ValueError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *(tmp_path / name for name in contents)],
        capture_output=True, text=True, check=True, timeout=600,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    for (name, (_, words)), line in zip(contents.items(), lines, strict=True):
        assert str(tmp_path / name) in line
        assert words in line


@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_batch_is_read_or_refused_and_nothing_else(tmp_path_factory, data):
    pixels = np.zeros((1, 3072), np.uint8)
    content = bytearray(pickle.dumps({b"data": pixels, b"labels": [1]}, protocol=2))
    interesting = [*range(120), *range(len(content) - 80, len(content))]
    for place in data.draw(st.lists(st.sampled_from(interesting), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("damaged")
    for member in CIFAR10.members:
        (folder / member).write_bytes(bytes(content))
    (folder / "batches.meta").write_bytes(
        pickle.dumps({b"label_names": [b"%d" % i for i in range(10)]}, protocol=2)
    )
    train = None
    with contextlib.suppress(InputError):
        _, train, _, _ = read_cifar(folder, CIFAR10)
    if train is not None:
        assert train.images.shape == (5, 32, 32, 3)
        assert set(train.labels) <= set(range(10))
