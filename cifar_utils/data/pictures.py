"""Pictures made into arrays: files decoded, several at once, and images of another size."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from cifar_utils.events import progress_bar

TOGETHER = 32  # pictures that a thread decodes in one go


def decoded(
    label: str,
    sources: Sequence[Any],
    decode: Callable[[Any], np.ndarray],
    image_shape: tuple[int, int, int],
) -> np.ndarray:
    """What ``decode`` makes of each of the sources, in threads: uint8 ``(N, *image_shape)``.

    Raises
    ------
    Exception
        What ``decode`` raises at the first of the sources at which it does.
    """
    images = np.empty((len(sources), *image_shape), np.uint8)

    def some(start: int) -> None:
        for i in range(start, min(start + TOGETHER, len(sources))):
            images[i] = decode(sources[i])

    with ThreadPoolExecutor() as threads, progress_bar(label, len(sources)) as bar:
        for _ in threads.map(some, range(0, len(sources), TOGETHER)):
            bar.update(min(TOGETHER, len(sources) - bar.n))
    return images


def read_picture(path: Path, size: int) -> np.ndarray:
    """A file as uint8 ``(size, size, 3)``: upright, over white where it is transparent.

    Pictures that are not square are stretched, as :func:`keras.utils.image_dataset_from_directory`
    does.
    """
    from PIL import Image, ImageOps

    with Image.open(path, formats=["PNG", "JPEG", "WEBP", "BMP"]) as file:
        # A JPEG file of a large picture is decoded at a half, a quarter or an eighth of its size,
        # but four times as large as needed: that is four times as fast for photographs.
        file.draft(None, (4 * size, 4 * size))
        picture = ImageOps.exif_transpose(file)
    if picture.mode.startswith("I"):  # 16 bits of grey
        picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return _resized(picture.convert("RGB"), size)


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Images ``(N, H, W, 3)`` of another size: uint8 ``(N, size, size, 3)``."""
    from PIL import Image

    if images.shape[1:3] == (size, size):
        return images
    one = lambda image: _resized(Image.fromarray(image), size)  # noqa: E731
    return decoded("resizing", images, one, (size, size, 3))


def _resized(picture: Any, size: int) -> np.ndarray:
    """By Pillow's bicubic filter.

    It averages over all pixels that a smaller picture's pixel covers, so nothing is aliased, and
    keeps edges sharper than a mean of them (``BOX``), which makes blocks of a larger picture.
    """
    from PIL.Image import Resampling

    return np.asarray(picture.resize((size, size), Resampling.BICUBIC))
