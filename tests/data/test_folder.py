import os

import numpy as np
import pytest
from PIL import Image

from cifar_utils.data import load_dataset

COLOURS = {"cat": (200, 30, 40), "dog": (20, 180, 60), "eel": (10, 40, 220)}


def save(path, picture, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    return path


@pytest.fixture
def pets(tmp_path):
    """Twelve pictures to train on of each of three classes, of many sizes, kinds and formats."""
    folder = tmp_path / "pets"
    for name, colour in COLOURS.items():
        for i in range(12):
            suffix = ("png", "jpg", "JPEG", "webp", "bmp")[i % 5]
            picture = Image.new("RGB", (20 + 7 * i, 50 - i), colour)
            save(folder / "train" / name / f"{i:02}.{suffix}", picture)
    return folder


def load(folder, **options):
    return load_dataset(f"folder:{folder}", **{"validation_fraction": 0.2} | options)


def first(folder, picture, kind="png", **options):
    """What a picture is read as, if it is the first of the test images."""
    save(folder / "test/cat" / f"0.{kind}", picture, **options)
    for name in ("dog", "eel"):
        save(folder / "test" / name / "0.png", Image.new("L", (9, 9)))
    return load(folder, image_size=16).test.images[0]


def test_classes_are_folders_and_a_sixth_is_to_test_on_whatever_the_seed(pets):
    one, two = load(pets), load(pets, seed=1)
    assert one.name == "folder:pets"
    assert one.source == "folder"
    assert one.class_names == ("cat", "dog", "eel")
    assert one.image_shape == (32, 32, 3)
    assert np.bincount(one.test.labels).tolist() == [2, 2, 2]
    assert np.bincount(one.train.labels).tolist() == [8, 8, 8]
    assert np.bincount(one.validation.labels).tolist() == [2, 2, 2]
    for split in (one.train, one.validation, one.test):
        assert split.images.dtype == np.uint8
        wanted = np.array(list(COLOURS.values()))[split.labels][:, None, None]
        assert np.abs(split.images.astype(int) - wanted).max() < 12  # JPEG and WebP keep it nearly
    np.testing.assert_array_equal(one.test.images, two.test.images)
    assert one.fingerprint != two.fingerprint


def test_the_test_pictures_are_known_again_whatever_the_size_and_the_seed(pets):
    known = load(pets).test_pictures
    assert load(pets, seed=1, image_size=8, train_limit=15).test_pictures == known
    assert load(pets, test_limit=3).test_pictures != known
    save(pets / "test/cat/0.png", Image.new("RGB", (20, 50), COLOURS["cat"]))
    for name in ("dog", "eel"):
        save(pets / "test" / name / "0.png", Image.new("RGB", (20, 50)))
    changed = load(pets).test_pictures
    assert changed != known
    save(pets / "test/eel/0.png", Image.new("RGB", (20, 50), (1, 1, 1)))
    assert load(pets).test_pictures != changed
    assert load_dataset("digits").test_pictures == ""


def test_the_fingerprint_is_of_the_pictures_not_of_where_they_are(pets, monkeypatch):
    fingerprint = load(pets).fingerprint
    moved = pets.rename(pets.with_name("moved"))
    monkeypatch.chdir(moved)
    here = load(".")
    assert (here.fingerprint, here.name) == (fingerprint, "folder:moved")
    monkeypatch.setenv("HOME", str(moved.parent))
    assert load("~/moved").fingerprint == fingerprint
    save(moved / "train/cat/00.png", Image.new("RGB", (9, 9)))
    assert load(moved).fingerprint != fingerprint
    assert str(pets.parent) not in repr(here)


def test_limits_and_image_size(pets):
    dataset = load(pets, train_limit=15, test_limit=3, image_size=24)
    sizes = [len(split.labels) for split in (dataset.train, dataset.validation, dataset.test)]
    assert sizes == [12, 3, 3]
    assert dataset.image_shape == (24, 24, 3)


def test_a_folder_to_test_on_and_a_note(pets):
    (pets / "SOURCE.txt").write_text("Taken at home.\n")
    for name in COLOURS:
        picture = Image.new("RGB", (9, 9), "red" if name == "dog" else "black")
        save(pets / "test" / name / "a.png", picture)
    dataset = load(pets)
    assert dataset.test.labels.tolist() == [0, 1, 2]
    assert dataset.test.images[1, 0, 0].tolist() == [255, 0, 0]
    assert len(dataset.train.labels) + len(dataset.validation.labels) == 36
    assert dataset.note == "Taken at home."


def test_other_files_are_no_pictures(pets):
    before = load(pets).fingerprint
    for name in (
        "train/cat/.hidden.png",
        "train/.cache/a.png",
        "train/cat/notes.txt",
        "other/a.png",
    ):
        (pets / name).parent.mkdir(exist_ok=True)
        (pets / name).write_text("no picture")
    (pets / "train/cat/more.png").mkdir()
    assert load(pets).fingerprint == before


@pytest.mark.parametrize(
    ("mode", "colour", "wanted"),
    [
        ("L", 100, (100, 100, 100)),
        ("1", 1, (255, 255, 255)),
        ("I;16", 65535 // 2, (127, 127, 127)),
        ("RGBA", (0, 0, 200, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 200, 255), (0, 0, 200)),
        ("LA", (0, 128), (127, 127, 127)),
        ("P", 0, (0, 0, 0)),
    ],
)
def test_grey_deep_and_transparent_pictures_are_colours_over_white(pets, mode, colour, wanted):
    image = first(pets, Image.new(mode, (40, 40), colour))
    assert np.abs(image.astype(int) - wanted).max() <= 1


def test_a_palette_may_have_a_transparent_colour(pets):
    picture = Image.new("P", (40, 40), 0)
    picture.putpalette([0, 0, 0, 255, 0, 0])
    assert first(pets, picture, transparency=0).min() == 255


def test_a_deep_grey_may_be_transparent(pets):
    picture = Image.new("I;16", (40, 40), 300)
    assert first(pets, picture, transparency=300).min() == 255
    assert first(pets, picture, transparency=301).max() == 1


@pytest.mark.filterwarnings("error")
def test_a_large_picture_is_no_attack(pets, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6000)
    assert first(pets, Image.new("L", (80, 80), 100)).max() == 100


def test_a_photograph_is_turned_upright(pets):
    picture = Image.new("RGB", (400, 200), "black")
    picture.paste("white", (0, 0, 200, 200))  # the left half
    turned = Image.Exif()
    turned[0x0112] = 6  # what is on the left belongs on top
    image = first(pets, picture, "jpg", exif=turned, quality=95)
    assert image[:6].min() > 200
    assert image[10:].max() < 50


def empty(folder):
    (folder / "train/fox").mkdir()


def only_one(folder):
    for name in ("dog", "eel"):
        (folder / "train" / name).rename(folder / name)


def no_folders(folder):
    only_one(folder)
    (folder / "train/cat").rename(folder / "cat")


def broken(content):
    return lambda folder: (folder / "train/dog/05.png").write_bytes(content)


def truncated(folder):
    path = save(folder / "train/dog/05.png", Image.effect_noise((64, 64), 50))
    path.write_bytes(path.read_bytes()[:2000])


def to_test_on(*names):
    def make(folder):
        for name in names:
            save(folder / "test" / name / "0.png", Image.new("L", (9, 9)))

    return make


def too_few(folder):
    save(folder / "train/fox/0.png", Image.new("L", (9, 9)))


def of_another_format(folder):
    for number in range(5):
        save(folder / "train/dog" / f"{number}.GIF", Image.new("L", (9, 9)))


BAD = {
    "an empty class": (empty, ["train/fox/ holds no pictures", ".png"]),
    "another format": (of_another_format, ["dog/ holds 0.GIF, 1.GIF, 2.GIF and 2 more", ".webp"]),
    "one class": (only_one, ["one class, 'cat'", "two or more"]),
    "no class": (no_folders, ["no folders", "train/CLASS/"]),
    "no picture": (
        broken(b"<html>"),
        ["train/dog/05.png", "its content is none of PNG, JPEG, WEBP, BMP"],
    ),
    "a truncated picture": (truncated, ["train/dog/05.png", "truncated"]),
    "another class to test on": (
        to_test_on("cat", "dog", "eel", "fox"),
        ["train/ has no class 'fox'"],
    ),
    "a class less to test on": (to_test_on("cat", "dog"), ["test/ has no class 'eel'"]),
    "a name in no encoding": (to_test_on("c\udcfft"), ["test/'c\\udcfft'", "rename"]),
    "a name of two lines": (to_test_on("c\nt"), ["test/'c\\nt'", "rename"]),
    "too few to test on": (too_few, ["there is no test/", "class 'fox' without test images"]),
}


@pytest.mark.parametrize(("make", "words"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_one_line_by_its_name(pets, refused, make, words):
    make(pets)
    with refused("pets", *words):
        load(pets)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("folder:", ["names no folder"]),
        ("folder:flat", ["'folder:flat' holds 1.png", "train/CLASS/"]),
        ("folder:~nobody-of-this-name", ["can't be read"]),
        ("folders:flat", ["did you mean 'folder:/path'"]),
    ],
)
def test_a_name_without_pictures_by_class(refused, tmp_path, monkeypatch, name, words):
    save(tmp_path / "flat/1.png", Image.new("L", (9, 9)))
    monkeypatch.chdir(tmp_path)
    with refused(*words):
        load_dataset(name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_can_not_be_read(pets, refused):
    (pets / "train/cat").chmod(0)
    with refused("folder:pets", "can't be read"):
        load(pets)
