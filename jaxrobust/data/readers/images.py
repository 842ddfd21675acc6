"""Decoder of image files: all at once if they fit in memory, one by one when asked for if not."""

from __future__ import annotations

import functools
import io
import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from jaxrobust.data.examples import View
from jaxrobust.errors import UserError, check, choose

FORMATS = (
    "PNG", "JPEG", "MPO", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF",
)  # fmt: skip
"""What is decoded, whatever a file is called: decoders that only decode."""
MAX_FILE_BYTES = 1 << 30
MAX_PIXELS = 178_956_970  # where Pillow speaks of a decompression bomb
_TYPES = frozenset(
    ".png .apng .jpg .jpeg .jpe .jfif .mpo .gif .webp .bmp .dib .tif .tiff .ppm .pgm .pbm .pnm "
    ".jp2 .j2k".split()
)
_AVIF, _HEIF = frozenset((".avif", ".avifs")), frozenset((".heic", ".heif"))
_MAGIC = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_SKIP = "--config.data.on_unreadable=skip leaves out images that cannot be read."
_THREADS = 8


_ORIENTATION = 0x0112


def _reason(error: Exception) -> str:
    """Returns an exception of a decoder as a few words."""
    if isinstance(error, UnidentifiedImageError):
        return "it is no image of a known type"
    return str(error).partition("\n")[0].strip(" .") or type(error).__name__


class UnreadableImage(UserError):
    """An image file that cannot be decoded."""


class LazyImages:
    """Images that are decoded when asked for: `len`, `[i]` -> uint8 [H, W, C].

    With a `size`, an image's shorter side is resized to it (bilinear, antialiased) and the
    square in its center cut out; without, all images must already be of one size.

    Args:
      read: i -> the bytes of image i (PNG, JPEG, ...).
      names: what to call each image in messages.
      size: side of the square, or None.
      channels: 1 or 3; None looks at the images.
      paths: of the files, if they are files: a change of their sizes is noticed by these.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        read: Callable[[int], bytes],
        names: Sequence[str],
        size: int | None = None,
        channels: int | None = None,
        paths: Sequence[str] | None = None,
    ):
        self.read, self.names, self.size, self.paths = read, names, size, paths
        self.channels = channels or self._look_for_color()
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
        except Exception as error:  # Pillow's decoders raise nearly anything
            raise UnreadableImage(
                f"Image {self.names[i]} cannot be read: {_reason(error)}. {_SKIP}"
            ) from None
        check(
            array.shape == self.shape[1:],
            f"Image {self.names[i]} is {array.shape[0]} x {array.shape[1]}, others are "
            f"{self.shape[1]} x {self.shape[2]}: choose an image size to resize to, "
            "e.g. --config.data.image_size=64.",
        )
        return array

    def _opened(self, i: int) -> Image.Image | None:
        try:
            return _open(self.read(i))
        except Exception:
            return None

    def _first_size(self) -> tuple[int, int]:
        for i in range(len(self)):
            if (image := self._opened(i)) is not None:
                turned = image.getexif().get(_ORIENTATION, 1) in range(5, 9)
                return (image.width, image.height) if turned else (image.height, image.width)
        raise UserError(f"None of the {len(self)} images can be read, e.g. {self.names[0]}.")

    def _look_for_color(self, sample: int = 1000) -> int:
        picked = np.unique(np.linspace(0, len(self) - 1, min(len(self), sample)).astype(int))
        images = (self._opened(int(i)) for i in picked)
        gray = [image.mode[0] in "1LIF" and image.mode != "LAB" for image in images if image]
        return 1 if gray and all(gray) else 3


def types() -> frozenset[str]:
    """Returns the suffixes of the image types that are read, in lower case.

    AVIF where Pillow has it, HEIC where the package pillow-heif is installed.
    """
    more = _AVIF if features.check("avif") else frozenset()
    return _TYPES | more | (_HEIF if _has_heif() else frozenset())


@functools.cache
def _has_heif() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def looks_like_image(path: str) -> bool:
    """Returns whether a file begins as a PNG, JPEG, GIF, BMP, TIFF or WebP does."""
    with open(path, "rb") as file:
        head = file.read(12)
    return head.startswith(_MAGIC) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


def read_file(path: str) -> bytes:
    """Returns the bytes of an image file. Raises `OSError` if it is no regular file, or too big."""
    with open(path, "rb", opener=_nonblocking) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is no regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise OSError(f"it has {status.st_size / 2**20:.0f} MiB, too much for an image")
        return file.read()


def _nonblocking(path: str, flags: int) -> int:
    """Opens without waiting for the other end of a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _open(data: bytes) -> Image.Image:
    """Opens an image of one of the types allowed; others (PostScript, WMF) start other programs."""
    _has_heif()
    image = Image.open(io.BytesIO(data), formats=[f for f in FORMATS if f in _known_formats()])
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} are too many pixels")
    return image


@functools.cache
def _known_formats() -> frozenset[str]:
    Image.init()
    return frozenset(Image.OPEN)


def decode(data: bytes, size: int | None, channels: int) -> np.ndarray:
    """Decodes one image to uint8 [H, W, C] as an image viewer shows it.

    Turned as its EXIF orientation says; of an animation the first frame; transparent parts over
    white; CMYK and other color spaces as Pillow converts them; deep gray as `_gray` says.

    Args:
      data: the file's bytes; one of `FORMATS`.
      size: see `LazyImages`.
      channels: 1 or 3.
    """
    with _open(data) as image:
        if size is not None:
            image.draft(None, (size, size))  # lets JPEG decode at a fraction of its size
        turned = _upright(image)
        mode = "L" if channels == 1 else "RGB"
        flat = _gray(turned) if turned.mode[0] in "IF" else _opaque(turned)
        if flat.mode != mode:
            flat = flat.convert(mode)
        if size is not None and flat.size != (size, size):
            flat = _square(flat, size)
        array = np.array(flat)
    return array if array.ndim == 3 else array[:, :, None]


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # metadata are damaged, not the picture
        return image


def _opaque(image: Image.Image) -> Image.Image:
    """Lays what is transparent over white."""
    if "A" not in image.mode and "a" not in image.mode and "transparency" not in image.info:
        return image
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image)


def _gray(image: Image.Image) -> Image.Image:
    """Scales gray of 16 bits, 32 bits or floats to 8 bits.

    16 bits: v / 257. 32 bits: as they are if none exceeds 255, v / 257 if none exceeds 65535, else
    from their least to their greatest value. Floats: 255 v if all lie in [0, 1], else as 32 bits.
    What is negative or beyond the end is clipped, NaN is black.
    """
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    high = values.max(initial=0)
    if image.mode.startswith("I;16"):
        values = values / 257
    elif image.mode == "F" and high <= 1 and values.min(initial=0) >= 0:
        values = values * 255
    elif high > 65535:
        low = values.min()
        values = (values - low) / (high - low) * 255
    elif high > 255:
        values = values / 257
    return Image.fromarray(np.round(values).clip(0, 255).astype(np.uint8))


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
    problems: dict[int, UnreadableImage] = {}
    out = np.zeros(images.shape, np.uint8) if fits else None

    def put(i: int) -> None:
        try:
            image = images[i]
        except UnreadableImage as error:
            readable[i], problems[i] = False, error
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
    if problems and on_unreadable == "error":
        raise _all_of(problems, images.names)
    check(len(kept) > 0, f"None of the {len(images)} images can be read, e.g. {images.names[0]}.")
    if len(kept) == len(images):
        return (images if out is None else out), kept
    return (View(images, kept) if out is None else out[kept]), kept


def _all_of(problems: dict[int, UnreadableImage], names: Sequence[str]) -> UnreadableImage:
    """Returns one error for all images that cannot be read."""
    first, *rest = sorted(problems)
    if not rest:
        return problems[first]
    more = ", ..." if len(rest) > 4 else ""
    which = ", ".join(names[i] for i in [first, *rest][:5]) + more
    cause = str(problems[first]).removesuffix(f" {_SKIP}")
    return UnreadableImage(
        f"{cause} {len(problems)} of {len(names)} images cannot be read: {which}. {_SKIP}"
    )


def skipped_note(split: str, ids: Sequence[str], kept: np.ndarray) -> str:
    """Says which images of a split were left out, the first five by name."""
    skipped = [ids[i] for i in np.setdiff1d(np.arange(len(ids)), kept)]
    more = ", ..." if len(skipped) > 5 else ""
    return f"Skipped {len(skipped)} unreadable images of {split}: {', '.join(skipped[:5])}{more}."
