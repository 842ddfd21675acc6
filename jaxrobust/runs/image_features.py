"""Features of images for models of tables: pixels of small ones, a pretrained network of others.

Features of a run are kept in its workdir (`features.npz`), each with a digest of its image: what is
there is not computed again when a run goes on or is audited, whatever its labels and splits are;
an image that has changed is. A run whose neighbor in the same folder of runs has them copies them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxrobust import compile_cache, files
from jaxrobust.data.examples import Joined
from jaxrobust.errors import UserError, check
from jaxrobust.process import duration

if TYPE_CHECKING:  # it imports JAX, which blended models do without
    from jaxrobust.data.prepare import Prepared

SMALL = 16  # pixels: images of a shorter side are their own features
FILE = "features.npz"
INSTALLED = "installed"
_CHUNK = 256  # images that are decoded together
_SAVE_SECONDS = 60.0
_NEIGHBORS = 8
_THREADS = 4

Progress = Callable[[int, int, float], None]


class Extractor(NamedTuple):
    """What computes features: a network, its weights, the side of its images in pixels.

    Attributes:
      network: a key of `networks.pretrained.ARCHITECTURES`.
      source: `installed`, a weight file, or `hf:owner/repository`.
      image_size: side to which images are resized.
    """

    network: str = "efficientnet_lite0"
    source: str = INSTALLED
    image_size: int = 128

    @property
    def weights(self) -> bool | str:
        """As `networks.pretrained.variables` takes it."""
        return True if self.source == INSTALLED else self.source


DEFAULT = Extractor()


def from_config(config: ConfigDict) -> Extractor:
    """Returns what a configuration names; the default where it names nothing.

    Raises:
      UserError: a network without published weights.
    """
    network, data = config.network, config.data
    if network.pretrained is None:
        return DEFAULT
    from jaxrobust.networks import pretrained

    only = pretrained.image_side(network.name)
    check(
        network.freeze or only in (None, data.image_size),
        f"network.name={network.name} takes images of {only} pixels: set "
        f"--config.data.image_size={only}.",
    )
    side = only or data.image_size or DEFAULT.image_size
    source = network.pretrained
    if source != INSTALLED and not source.startswith("hf:"):
        path = Path(source).expanduser().absolute()
        check(
            path.is_file(),
            f"network.pretrained={source}: no such file. Give {INSTALLED}, a .safetensors or .pth "
            "file, or hf:OWNER/REPOSITORY.",
        )
        source = str(path)
    return Extractor(network.name, source, side)


def is_head(config: ConfigDict) -> bool:
    """Returns whether a configuration trains a linear layer on features of a frozen network."""
    network = config.network
    return network.pretrained is not None and network.freeze and config.method.name != "blend"


def with_features(
    config: ConfigDict,
    data: Prepared,
    workdir: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    compute: bool = True,
) -> Prepared:
    """Returns data with features in place of images, where a configuration asks for them.

    Args:
      config, data: of a run; data that have features already are returned as they are.
      workdir: where features are kept and looked for, or None.
      say: called with lines for the user.
      compute: False puts zeros in their place, for a dry run.

    Raises:
      UserError: data that are no images; see `from_config`.
    """
    if not is_head(config) or data.train.images is not None:
        return data
    check(
        len(data.train.x.shape) == 4,
        f"network.pretrained={config.network.pretrained} is for images; these examples have shape "
        f"{list(data.train.x.shape[1:])}.",
    )
    which = from_config(config)
    names = ("train", "metadata", "validation", "test")
    parts = {n: part for n in names if (part := getattr(data, n)) is not None}
    counts = [len(part.labels) for part in parts.values()]
    if compute:
        x = of_parts([part.x for part in parts.values()], which, workdir, say)
    else:
        x = np.zeros((sum(counts), width(data.train.x.shape[1:], which)), np.float32)
    split = np.split(x, np.cumsum(counts)[:-1])
    made = {
        name: part._replace(x=features, images=part.x)
        for (name, part), features in zip(parts.items(), split, strict=True)
    }
    return data._replace(**made)


def width(shape: tuple[int, ...], of: Extractor = DEFAULT) -> int:
    """Returns the number of features F of images of shape (H, W, C)."""
    return int(np.prod(shape)) if min(shape[:2]) < SMALL else _WIDTHS[of.network]


_WIDTHS = {
    "efficientnet_lite0": 1280,
    "resnet18": 512,
    "resnet34": 512,
    "resnet50": 2048,
    "vit_small": 384,
}


def of(
    x: Any,
    progress: Progress | None = None,
    extractor: Extractor = DEFAULT,
    workdir: Path | None = None,
) -> np.ndarray:
    """Returns float32 [N, F].

    Args:
      x: uint8 [N, H, W, C], or a sequence of N such images that is indexed by number.
      progress: called with the number of finished images, N and the estimated seconds left.
      extractor: what computes them.
      workdir: where they are kept and looked for, or None.

    Raises:
      UserError: see `networks.pretrained.features`.
    """
    height, width = np.asarray(x[0]).shape[:2]
    if min(height, width) < SMALL:
        pixels = np.stack([np.asarray(x[i]) for i in range(len(x))])
        return pixels.reshape(len(pixels), -1).astype(np.float32) / 255
    key = _key(extractor)
    known = {} if workdir is None else _known(workdir, key)
    before, clock, saved = len(known), _Clock(len(x)), time.monotonic()
    rows: list[bytes] = []
    try:
        for images in _chunks(x):
            digests = [_digest(image) for image in images]
            missing = [i for i, digest in enumerate(digests) if digest not in known]
            new = _computed(extractor, [images[i] for i in missing], clock, progress)
            known |= zip((digests[i] for i in missing), new, strict=True)
            clock.done += len(images) - len(missing)
            rows += digests
            if workdir is not None and time.monotonic() - saved > _SAVE_SECONDS:
                _save(workdir, key, known)
                saved = time.monotonic()
    except KeyboardInterrupt:
        if workdir is not None and len(known) > before:
            _save(workdir, key, known)
        raise
    if workdir is not None and (len(known) > before or not (workdir / FILE).is_file()):
        _save(workdir, key, {digest: known[digest] for digest in rows})
    clock.remember(extractor)
    return np.stack([known[digest] for digest in rows])


def of_parts(
    parts: Sequence[Any], extractor: Extractor, workdir: Path | None, say: Callable[[str], None]
) -> np.ndarray:
    """Returns the features of the images of all parts, one after the other, telling how long.

    Args:
      parts: of each, as `of` takes images.
      extractor, workdir: see `of`.
      say: called with lines for the user.
    """
    x = Joined(parts)
    seconds, measured = seconds_per_image(extractor)
    say(
        f"Features of {len(x)} images by {extractor.network} at {extractor.image_size} pixels: "
        f"about {duration(len(x) * seconds)}{'' if measured else ' (a guess)'} unless they are "
        "kept from before."
    )
    begin = last = time.monotonic()

    def report(done: int, total: int, left: float) -> None:
        nonlocal last
        if time.monotonic() - last > 10 and done < total and left == left:
            last = time.monotonic()
            say(f"{done} of {total} images, about {duration(left)} left.")

    found = of(x, report, extractor, workdir)
    say(f"Features are there after {duration(time.monotonic() - begin)}.")
    return found


class _Clock:
    """How long the images that are left will take, by those that were computed.

    Attributes:
      total, done: number of images.
      computed: those that were timed; the first batch, which compiles, is not.
      seconds: that these took.
    """

    def __init__(self, total: int) -> None:
        self.total, self.done, self.computed, self.seconds = total, 0, 0, 0.0
        self._compiled = False

    def add(self, count: int, seconds: float) -> None:
        self.done += count
        if self._compiled:
            self.computed, self.seconds = self.computed + count, self.seconds + seconds
        self._compiled = True

    def left(self) -> float:
        rate = self.seconds / self.computed if self.computed else float("nan")
        return rate * (self.total - self.done) if self.total > self.done else 0.0

    def remember(self, of: Extractor) -> None:
        """Keeps what an image took, for the next dry run."""
        path = _timings()
        if self.computed < 100 or path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            found = _read_timings(path) | {_timing_key(of): self.seconds / self.computed}
            with files.whole(path) as file:
                file.write(json.dumps(found, indent=1) + "\n")
        except OSError:
            pass  # A figure for the next time, no more.


def _computed(
    of: Extractor, images: list[np.ndarray], clock: _Clock, progress: Progress | None
) -> np.ndarray | list:
    if not images:
        return []
    from jaxrobust.networks import pretrained

    last = [0, time.monotonic()]

    def report(done: int, total: int, left: float) -> None:
        del total, left
        now = time.monotonic()
        clock.add(done - last[0], now - last[1])
        last[:] = done, now
        if progress is not None:
            progress(clock.done, clock.total, clock.left())

    return pretrained.features(
        of.network, images, source=of.weights, image_size=of.image_size, progress=report
    )


def _chunks(x: Any) -> Iterator[list[np.ndarray]]:
    """Yields the images, some at a time, decoded by several threads."""
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(x), _CHUNK):
            rows = range(start, min(start + _CHUNK, len(x)))
            yield list(pool.map(lambda i: np.asarray(x[i]), rows))


def _digest(image: np.ndarray) -> bytes:
    text = repr(image.shape).encode()
    return hashlib.blake2b(np.ascontiguousarray(image), digest_size=16, key=text).digest()


def _key(of: Extractor) -> str:
    """What features depend on beside the image; of a weight file, its contents."""
    text = of.source
    if of.source != INSTALLED and not of.source.startswith("hf:"):
        check(Path(of.source).is_file(), f"The pretrained weights {of.source} are not there.")
        with open(of.source, "rb") as file:
            text = hashlib.file_digest(file, "sha256").hexdigest()
    return repr((1, of.network, text, of.image_size))


def _known(workdir: Path, key: str) -> dict[bytes, np.ndarray]:
    """Returns features by digest, of a workdir or, if it has none, of its newest neighbors."""
    if (workdir / FILE).is_file():
        return _read(workdir / FILE, key)
    try:
        found = [p for p in workdir.parent.glob(f"*/{FILE}") if p.is_file()]
        found = sorted(found, key=lambda p: -p.stat().st_mtime)[:_NEIGHBORS]
    except OSError:
        return {}
    known: dict[bytes, np.ndarray] = {}
    for path in found:
        known |= _read(path, key)
    return known


def _read(path: Path, key: str) -> dict[bytes, np.ndarray]:
    try:
        arrays = files.read_npz(path)
        if str(arrays["key"]) != key:
            return {}
        digests, x = arrays["digest"], arrays["x"]
    except (UserError, KeyError):
        return {}
    return {digest.tobytes(): row for digest, row in zip(digests, x, strict=False)}


def _save(workdir: Path, key: str, known: dict[bytes, np.ndarray]) -> None:
    workdir.mkdir(parents=True, exist_ok=True)
    digests = np.frombuffer(b"".join(known), np.uint8).reshape(-1, 16)
    with files.whole(workdir / FILE, "wb") as file:
        np.savez(file, key=np.array(key), digest=digests, x=np.stack(list(known.values())))


SECONDS = {
    "efficientnet_lite0": 0.014,
    "resnet18": 0.04,
    "resnet34": 0.075,
    "resnet50": 0.085,
    "vit_small": 0.16,
}
"""Seconds per image of 128 pixels (vit_small: 224) on two CPU cores, until one is measured."""


def seconds_per_image(of: Extractor) -> tuple[float, bool]:
    """Returns the seconds that an image takes, and whether they were measured on this machine."""
    path = _timings()
    found = _read_timings(path) if path is not None else {}
    if _timing_key(of) in found:
        return found[_timing_key(of)], True
    side = 224 if of.network == "vit_small" else 128
    return SECONDS[of.network] * (of.image_size / side) ** 2, False


def _timing_key(of: Extractor) -> str:
    import jax

    return f"{of.network} {of.image_size} {jax.devices()[0].device_kind}"


def _timings() -> Path | None:
    folder = compile_cache.folder()
    return None if folder is None else folder / "seconds_per_image.json"


def _read_timings(path: Path) -> dict[str, float]:
    try:
        found = files.read_json(path) if path.is_file() else {}
    except (UserError, OSError):
        return {}
    right = isinstance(found, dict)
    return {k: v for k, v in found.items() if isinstance(v, float) and v > 0} if right else {}
