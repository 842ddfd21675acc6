"""Image files: decoded all at once if they are small, one by one when asked for if not."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from jaxrobust.data.examples import View
from jaxrobust.errors import UserError, check, choose

_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
_THREADS = 8


class UnreadableImage(UserError):
    """An image file that cannot be decoded."""


class LazyImages:
    """Images that are decoded when asked for: `len`, `[i]` -> uint8 [H, W, C].

    With a `size`, an image's shorter side is resized to it (bilinear, antialiased) and the
    square in its centre cut out; without, all images must already be of one size.

    Args:
      read: i -> the bytes of image i (PNG, JPEG, ...).
      names: what to call each image in messages.
      size: side of the square, or None.
      channels: 1 or 3; None looks at the images.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        read: Callable[[int], bytes],
        names: Sequence[str],
        size: int | None = None,
        channels: int | None = None,
    ):
        self.read, self.names, self.size = read, names, size
        self.channels = channels or self._look_for_colour()
        self.shape = (
            len(names),
            *(self._first_size() if size is None else (size, size)),
            self.channels,
        )

    def __len__(self) -> int:
        return len(self.names)

    def raw(self, i: int) -> bytes:
        """Returns the encoded bytes of image i, the same whatever decodes them."""
        return self.read(i)

    def __getitem__(self, i: int) -> np.ndarray:
        try:
            array = decode(self.read(i), self.size, self.channels)
        except _UNREADABLE as error:
            raise UnreadableImage(f"Image {self.names[i]} cannot be read: {error}") from None
        check(
            array.shape == self.shape[1:],
            f"Image {self.names[i]} is {array.shape[0]} x {array.shape[1]}, others are "
            f"{self.shape[1]} x {self.shape[2]}: choose an image size to resize to.",
        )
        return array

    def _opened(self, i: int) -> Image.Image | None:
        try:
            return Image.open(io.BytesIO(self.read(i)))
        except _UNREADABLE:
            return None

    def _first_size(self) -> tuple[int, int]:
        for i in range(len(self)):
            if (image := self._opened(i)) is not None:
                return image.height, image.width
        raise UserError(f"None of the {len(self)} images can be read, e.g. {self.names[0]}.")

    def _look_for_colour(self, sample: int = 1000) -> int:
        picked = np.unique(np.linspace(0, len(self) - 1, min(len(self), sample)).astype(int))
        images = (self._opened(int(i)) for i in picked)
        grey = [image.mode in ("1", "L", "I;16") for image in images if image is not None]
        return 1 if grey and all(grey) else 3


def decode(data: bytes, size: int | None, channels: int) -> np.ndarray:
    """Decodes one image to uint8 [H, W, C]; see `LazyImages` for `size`."""
    with Image.open(io.BytesIO(data)) as image:
        if size is not None:
            image.draft(None, (size, size))  # lets JPEG decode at a fraction of its size
        if image.mode == "I;16":
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        mode = "L" if channels == 1 else "RGB"
        if image.mode != mode:
            image = image.convert(mode)
        if size is not None and image.size != (size, size):
            image = _square(image, size)
        array = np.array(image)
    return array if array.ndim == 3 else array[:, :, None]


def _square(image: Image.Image, size: int) -> Image.Image:
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return image.crop((left, top, left + size, top + size))


def load(
    images: LazyImages, on_unreadable: str, max_bytes: int
) -> tuple[np.ndarray | LazyImages | View, np.ndarray]:
    """Decodes images into memory if they fit there.

    Args:
      on_unreadable: `error`, or `skip`: every image is decoded once, also of those that stay
        on disk, to know which can be read.
      max_bytes: what may be held in memory; more stays lazy.

    Returns:
      The images that can be read, and int64 [M], which of the N they are.

    Raises:
      UserError: an image cannot be read (`on_unreadable="error"`; lazily, when it is asked for),
        or none can.
    """
    choose("treatment of unreadable images", on_unreadable, ("error", "skip"))
    fits = int(np.prod(images.shape, dtype=np.int64)) <= max_bytes
    if not fits and on_unreadable == "error":
        return images, np.arange(len(images))
    readable = np.ones(len(images), bool)
    out = np.zeros(images.shape, np.uint8) if fits else None

    def put(i: int) -> None:
        try:
            image = images[i]
        except UnreadableImage:
            if on_unreadable == "error":
                raise
            readable[i] = False
            return
        if out is not None:
            out[i] = image

    # Threads pay where decoding (outside the interpreter's lock) takes longer than calling it.
    if images.shape[1] * images.shape[2] < 64 * 64:
        for i in range(len(images)):
            put(i)
    else:
        with ThreadPoolExecutor(_THREADS) as pool:
            for _ in pool.map(put, range(len(images))):
                pass
    kept = np.flatnonzero(readable)
    check(len(kept) > 0, f"None of the {len(images)} images can be read, e.g. {images.names[0]}.")
    if len(kept) == len(images):
        return (images if out is None else out), kept
    return (View(images, kept) if out is None else out[kept]), kept


def skipped_note(split: str, ids: Sequence[str], kept: np.ndarray) -> str:
    """Says which images of a split were left out, the first five by name."""
    skipped = [ids[i] for i in np.setdiff1d(np.arange(len(ids)), kept)]
    more = ", ..." if len(skipped) > 5 else ""
    return f"Skipped {len(skipped)} unreadable images of {split}: {', '.join(skipped[:5])}{more}."
