import io
import stat
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cifar_utils import events
from cifar_utils.data import DATASETS, load_dataset
from cifar_utils.data.archive import TINY_IMAGENET

WNIDS = ("n03126707", "n01443537", "n02012849")
WORDS = {
    "n03126707": "crane",
    "n01443537": "goldfish, Carassius auratus",
    "n02012849": "crane",
    "n00001740": "entity",
}
EACH = 10
TRAINED = [f"train/{wnid}/images/{wnid}_{i}.JPEG" for wnid in WNIDS for i in range(EACH)]
TESTED = [f"val/images/val_{i}.JPEG" for i in range(6)]
SOME = TRAINED[EACH + 1]


def jpeg(image, mode="RGB", size=(64, 64), kind="JPEG"):
    """A file of one colour, which JPEG keeps exactly where it is a grey."""
    file = io.BytesIO()
    Image.new(mode, size, image if mode == "L" else (image,) * 3).save(file, kind)
    return file.getvalue()


def contents():
    """Each file of a small data set in the official layout: image i is of the grey 5 * i."""
    files = {
        "wnids.txt": "".join(f"{wnid}\n" for wnid in WNIDS),
        "words.txt": "".join(f"{wnid}\t{words}\n" for wnid, words in WORDS.items()),
        "val/val_annotations.txt": "".join(
            f"val_{i}.JPEG\t{WNIDS[i % 3]}\t0\t32\t44\t62\n" for i in range(6)
        ),
        "test/images/test_0.JPEG": "has no label, and is not read",
    }
    for wnid in WNIDS:
        rows = (f"{wnid}_{i}.JPEG\t0\t10\t63\t58\n" for i in range(EACH))
        files[f"train/{wnid}/{wnid}_boxes.txt"] = "".join(rows)
    for i, name in enumerate((*TRAINED, *TESTED)):
        files[name] = jpeg(5 * i, mode="L" if i % 2 else "RGB")
    return files


def packed(files, top="tiny-imagenet-200/"):
    """A zip of these files (by name, or a member made beforehand)."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name if isinstance(name, zipfile.ZipInfo) else top + name, content)
    return target.getvalue()


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write the small data set, as a folder or a zip; the dataset's description is of its size."""
    small = replace(TINY_IMAGENET, classes=3, train_images=30, test_images=6)
    monkeypatch.setitem(DATASETS, "tiny_imagenet", small)

    def write(changes=None, pack=False, top="tiny-imagenet-200/"):
        files = contents()
        for name, change in (changes or {}).items():
            files[name] = change(files[name]) if callable(change) else change
        files = {name: content for name, content in files.items() if content is not None}
        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        monkeypatch.setenv("CIFAR_DATA_DIR", str(data))
        if pack:
            (data / "tiny-imagenet-200.zip").write_bytes(packed(files, top))
            return data / "tiny-imagenet-200.zip"
        for name, content in files.items():
            path = data / "tiny-imagenet-200" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return data / "tiny-imagenet-200"

    return write


def load():
    return load_dataset("tiny_imagenet", validation_fraction=0.0)


@pytest.mark.parametrize(
    ("pack", "top"), [(False, ""), (True, "tiny-imagenet-200/"), (True, "copy/of/it/")]
)
def test_the_official_layout_gives_images_and_labels_in_its_order(write, pack, top):
    write({"SOURCE.txt": "A re-packed copy.\nMore.\n"}, pack=pack, top=top)
    dataset = load()
    assert dataset.note == "A re-packed copy."
    assert dataset.source == ("archive" if pack else "folder")
    assert dataset.image_shape == (64, 64, 3)
    greys = np.arange(36, dtype=np.uint8) * 5
    for split, expected in ((dataset.train, greys[:30]), (dataset.test, greys[30:])):
        assert split.images.dtype == np.uint8
        # Grey images, too, have three channels.
        whole = np.broadcast_to(expected[:, None, None, None], (len(expected), 64, 64, 3))
        np.testing.assert_array_equal(split.images, whole)
    assert dataset.train.labels.tolist() == np.repeat([0, 1, 2], EACH).tolist()
    assert dataset.test.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert dataset.class_names == ("crane (n03126707)", "goldfish", "crane (n02012849)")


WRONG = {
    "half an image": ({SOME: lambda image: image[:-200]}, [SOME, "runcated"]),
    "a PNG": ({SOME: jpeg(0, kind="PNG")}, [SOME, "no JPEG image"]),
    "a wrong size": ({SOME: jpeg(0, size=(64, 63))}, [SOME, "64x63 pixels, not 64x64"]),
    "an image missing": ({TESTED[2]: None}, [TESTED[2], "missing"]),
    "a table missing": ({f"train/{WNIDS[1]}/{WNIDS[1]}_boxes.txt": None}, ["_boxes.txt missing"]),
    "an annotation missing": (
        {"val/val_annotations.txt": lambda text: text[text.index("\n") + 1 :]},
        ["30 training and 5 test images, not 3 classes, 30 training and 6"],
    ),
    "half a line": (
        {"val/val_annotations.txt": lambda text: text[: text.rindex("\tn")]},
        ["a table", "not enough values"],
    ),
    "an unknown wnid": (
        {"val/val_annotations.txt": lambda text: text.replace(WNIDS[1], "n9", 1)},
        ["a table", "'n9' is not in list"],
    ),
    "no words for a wnid": (
        {"words.txt": lambda text: text.replace(WNIDS[1], "n9")},
        [f"{WNIDS[1]} missing"],
    ),
    "no text": ({"wnids.txt": b"\xff\xfe\n"}, ["missing"]),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), WRONG.values(), ids=WRONG)
def test_what_is_not_as_it_should_be_is_one_line(write, refused, changes, words):
    with refused(write(changes), *words):
        load()


def with_a_flipped_bit(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        member = archive.getinfo(f"tiny-imagenet-200/{SOME}")
    data = bytearray(data)
    data[member.header_offset + 30 + len(member.filename) + member.compress_size // 2] ^= 1
    return data


DAMAGED = {
    "empty": (lambda data: b"", "replace it"),
    "cut": (lambda data: data[: int(0.9 * len(data))], "replace it"),
    "a flipped bit": (with_a_flipped_bit, "replace it"),
    "no zip": (lambda data: b"not a zip", "not a zip file"),
    "another": (lambda data: packed({"other.txt": "of another data set"}), "wnids.txt missing"),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGED.values(), ids=DAMAGED)
def test_a_zip_that_is_not_what_it_should_be(write, refused, damage, words):
    path = write(pack=True)
    path.write_bytes(damage(path.read_bytes()))
    with refused(path, words):
        load()


@pytest.mark.parametrize("kind", ["../up", "absolute", "link"])
def test_a_zip_member_that_would_escape_is_refused(write, refused, tmp_path, kind):
    names = {"../up": "tiny-imagenet-200/../../wnids.txt", "absolute": f"{tmp_path}/wnids.txt"}
    member = zipfile.ZipInfo(names.get(kind, "tiny-imagenet-200/train/link"))
    if kind == "link":
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = write({member: "/etc/passwd"}, pack=True)
    with refused(path, "leads elsewhere"):
        load()


def test_a_zip_that_unpacks_to_far_too_much_is_not_read(write, refused, monkeypatch):
    monkeypatch.setattr("cifar_utils.data.unpack.LARGEST", 2**24)
    path = write({"words.txt": bytes(2**25)}, pack=True)
    assert path.stat().st_size < 2**18
    with refused(path, "words.txt", "33,554,432 bytes is too much"):
        load()


def test_a_link_to_nowhere_is_one_line(write, refused, tmp_path):
    path = write({SOME: None})
    (path / SOME).symlink_to(tmp_path / "nowhere")
    with refused(path, SOME, "No such file"):
        load()


def test_progress_is_shown_where_it_takes_long(write, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    write()
    load()
    assert terminal.getvalue() == ""
    monkeypatch.setattr(events, "PATIENCE", 0)
    write({SOME: jpeg(255)})
    load()
    assert "decoding tiny-imagenet-200" in terminal.getvalue()
