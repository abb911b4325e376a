"""Pictures as arrays: decoding of files, several at once, and resizing."""

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cifar_utils.errors import InputError
from cifar_utils.events import progress_bar

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
TOGETHER = 32  # pictures that a thread decodes in one go


def decoded(
    label: str,
    sources: Sequence[Any],
    decode: Callable[[Any], np.ndarray],
    image_shape: tuple[int, int, int],
) -> np.ndarray:
    """Call ``decode`` on each source, in threads: uint8 ``(N, *image_shape)``.

    Raises
    ------
    InputError
        Where the images need more memory than there is.
    Exception
        The exception of the first source at which ``decode`` raises.
    """
    try:
        images = np.empty((len(sources), *image_shape), np.uint8)
    except (MemoryError, ValueError) as error:  # ValueError: the size overflows
        size = f"{image_shape[0]}×{image_shape[1]} pixels"
        raise InputError(
            f"there is no memory for {len(sources):,} images of {size}; choose a smaller "
            "image_size or fewer images"
        ) from error

    def some(start: int) -> None:
        for i in range(start, min(start + TOGETHER, len(sources))):
            images[i] = decode(sources[i])

    with ThreadPoolExecutor() as threads, progress_bar(label, len(sources)) as bar:
        for _ in threads.map(some, range(0, len(sources), TOGETHER)):
            bar.update(min(TOGETHER, len(sources) - bar.n))
    return images


def read_pictures(label: str, paths: Sequence[Path], size: int) -> np.ndarray:
    """Files as uint8 ``(N, size, size, 3)``, each as :func:`read_picture` gives it."""
    from PIL.Image import DecompressionBombWarning

    # Twice as many pixels are an error; what is below is only large.
    with warnings.catch_warnings(action="ignore", category=DecompressionBombWarning):
        return decoded(label, paths, partial(read_picture, size=size), (size, size, 3))


def read_picture(path: Path, size: int) -> np.ndarray:
    """A file as uint8 ``(size, size, 3)``, upright. Transparent pixels lie over white.

    Pictures that are not square are stretched, as :func:`keras.utils.image_dataset_from_directory`
    does.

    Raises
    ------
    InputError
        Where the file is missing, damaged or of another format.
    """
    from PIL import UnidentifiedImageError

    try:
        return _read_picture(path, size)
    except FileNotFoundError as error:
        raise InputError(f"picture {path} is not there; give the path of a file") from error
    except Exception as error:  # a damaged picture may raise nearly anything
        reason = str(error).partition("\n")[0]
        if isinstance(error, UnidentifiedImageError):
            reason = f"its content is none of {', '.join(FORMATS)}"
        raise InputError(
            f"picture {path} can't be read ({reason}); replace or remove it"
        ) from error


def _read_picture(path: Path, size: int) -> np.ndarray:
    from PIL import Image, ImageOps

    with Image.open(path, formats=FORMATS) as file:
        # A large JPEG picture is decoded at a half, a quarter or an eighth of its size, but at
        # least four times as large as needed. For photographs that is four times as fast.
        file.draft(None, (4 * size, 4 * size))
        picture = ImageOps.exif_transpose(file)
    if picture.mode.startswith("I"):  # 16 bits of grey
        grey, clear = np.asarray(picture), picture.info.get("transparency")
        picture = Image.fromarray((grey // 257).astype(np.uint8))
        if clear is not None:
            picture.putalpha(Image.fromarray(np.where(grey == clear, 0, 255).astype(np.uint8)))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return _resized(picture.convert("RGB"), size)


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Resize images ``(N, H, W, 3)`` to uint8 ``(N, size, size, 3)``."""
    from PIL import Image

    if images.shape[1:3] == (size, size):
        return images
    one = lambda image: _resized(Image.fromarray(image), size)  # noqa: E731
    return decoded("resizing", images, one, (size, size, 3))


def _resized(picture: Any, size: int) -> np.ndarray:
    """Resize by Pillow's bicubic filter.

    To make a picture smaller, it averages over all pixels that a new pixel covers, so nothing is
    aliased. Edges stay sharper than with their mean (``BOX``), which makes blocks when it enlarges.
    """
    from PIL.Image import Resampling

    return np.asarray(picture.resize((size, size), Resampling.BICUBIC))
