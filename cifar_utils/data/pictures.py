"""Pictures as arrays: decoding of files, several at once, and resizing."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from cifar_utils.errors import InputError
from cifar_utils.events import progress_bar

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


def read_picture(path: Path, size: int) -> np.ndarray:
    """A file as uint8 ``(size, size, 3)``, upright. Transparent pixels lie over white.

    Pictures that are not square are stretched, as :func:`keras.utils.image_dataset_from_directory`
    does.
    """
    from PIL import Image, ImageOps

    with Image.open(path, formats=["PNG", "JPEG", "WEBP", "BMP"]) as file:
        # A large JPEG picture is decoded at a half, a quarter or an eighth of its size, but at
        # least four times as large as needed. For photographs that is four times as fast.
        file.draft(None, (4 * size, 4 * size))
        picture = ImageOps.exif_transpose(file)
    if picture.mode.startswith("I"):  # 16 bits of grey
        picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
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
