"""Weight files of PyTorch read as NumPy arrays, without PyTorch and without running their code.

A `.pth` file is a pickle, which may call any function. The reader admits tensors in dictionaries
and nothing else: the instructions of the pickle are checked before it is read, four names are
known, sizes are bounded by the length of the file.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import pickletools
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from jaxrobust.errors import UserError, check

MAX_PICKLE = 2**26  # bytes
_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_INSTRUCTIONS = frozenset(
    "PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG "
    "LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE UNICODE BINSTRING SHORT_BINSTRING STRING "
    "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT DICT "
    "SETITEM SETITEMS BINPUT LONG_BINPUT PUT BINGET LONG_BINGET GET MEMOIZE GLOBAL REDUCE "
    "BUILD BINPERSID".split()
)


def read(path: str | Path, sha256: str | None = None) -> dict[str, np.ndarray]:
    """Returns the tensors of a `.safetensors`, `.pth`, `.pt` or `.bin` file by name.

    Args:
      path: the file.
      sha256: checksum that is compared before anything is read (hexadecimal).

    Raises:
      UserError: no such file, another checksum, a truncated file, anything that is not a tensor.
    """
    path = Path(path)
    check(path.is_file(), f"No weight file {path}.")
    if sha256 is not None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        check(
            found == sha256,
            f"{path} is not the file that was published (its SHA-256 is "
            f"{found[:12]}…, not {sha256[:12]}…): install its package again.",
        )
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path} cannot be read as safetensors ({first}): is it truncated, of another format "
            "or of a type that NumPy does not know (bfloat16)? Download it again."
        ) from error


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        with path.open("rb") as file:
            return _read_legacy(file, path.stat().st_size)
    except _WrongError as error:
        raise UserError(f"{path} is no file of PyTorch tensors: {error}.") from error
    except (
        pickle.UnpicklingError,
        EOFError,
        KeyError,
        IndexError,
        ValueError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        RuntimeError,  # it is encrypted
        OverflowError,
        RecursionError,
        MemoryError,
    ) as error:
        raise UserError(
            f"{path} is truncated or no file of PyTorch tensors. Download it again."
        ) from error


def _read_zip(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        [listing] = [name for name in sizes if name.endswith("data.pkl") and name.count("/") <= 1]
        folder = listing.removesuffix("data.pkl")
        _admit(sum(sizes.values()) <= 2 * path.stat().st_size, "it is compressed")
        _admit(sizes[listing] <= MAX_PICKLE, "its index is too long")
        if f"{folder}byteorder" in sizes:
            _admit(archive.read(f"{folder}byteorder") == b"little", "it is big-endian")
        tree, storages = _unpickle(io.BytesIO(archive.read(listing)))
        data = {key: archive.read(f"{folder}data/{key}") for key in storages}
    return _arrays(tree, storages, data)


def _read_legacy(file: BinaryIO, length: int) -> dict[str, np.ndarray]:
    magic, _ = _unpickle(file)
    _admit(magic == _MAGIC, "it does not begin as one")
    _unpickle(file)  # protocol
    system, _ = _unpickle(file)
    _admit(system["little_endian"] is True, "it is big-endian")
    tree, storages = _unpickle(file)
    keys, _ = _unpickle(file)
    data = {}
    for key in keys:
        storage = storages[key]
        prefix = file.read(8)
        _admit(len(prefix) == 8, "it is truncated")
        count = int.from_bytes(prefix, "little")
        _admit(count == storage.count, f"storage {key} has another length than its index says")
        size = count * storage.dtype.itemsize
        _admit(size <= length, f"storage {key} is longer than the file")
        data[key] = file.read(size)
    return _arrays(tree, storages, data)


class _WrongError(Exception):
    """What a file holds that it may not hold."""


class _Storage(NamedTuple):
    dtype: np.dtype
    count: int


class _Tensor(NamedTuple):
    storage: tuple[str, _Storage]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _admit(condition: bool, text: str) -> None:
    if not condition:
        raise _WrongError(text)


def _unpickle(file: BinaryIO) -> tuple[Any, dict[str, _Storage]]:
    """Returns the next object of a file and the storages to which its tensors refer."""
    start = file.tell()
    for instruction, argument, _ in pickletools.genops(file):
        _admit(instruction.name in _INSTRUCTIONS, f"it contains the instruction {instruction.name}")
        if "PUT" in instruction.name:
            _admit(int(argument) < 2**20, "its memo is too long")
    length = file.tell() - start
    _admit(length <= MAX_PICKLE, "its index is too long")
    file.seek(start)
    reader = _Unpickler(io.BytesIO(file.read(length)))
    return reader.load(), reader.storages


class _Unpickler(pickle.Unpickler):
    """Knows dictionaries, tensors and the types of storages by name, and nothing else."""

    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _Dictionary
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _rebuild_parameter
        if module == "torch" and name in _DTYPES:
            return np.dtype(_DTYPES[name])
        raise _WrongError(f"it contains {module}.{name}")

    def persistent_load(self, pid: Any) -> tuple[str, _Storage]:
        kind, dtype, key, _, count, *_ = pid
        _admit(
            kind == "storage"
            and isinstance(key, str)
            and isinstance(dtype, np.dtype)
            and isinstance(count, int)
            and count >= 0,
            "it refers to no storage",
        )
        self.storages[key] = _Storage(dtype, count)
        return key, self.storages[key]


class _Dictionary(dict):
    """Takes the place of OrderedDict, whose other state (`_metadata`) is dropped."""

    def __setstate__(self, state: Any) -> None:
        del state


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    sizes = (offset, *shape, *strides)
    _admit(all(isinstance(n, int) and n >= 0 for n in sizes), "a tensor has no whole sizes")
    _admit(len(shape) == len(strides) <= 8, "a tensor has no usual shape")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    count = math.prod(shape)
    _admit(
        count == 0 or (last < storage[1].count and count <= storage[1].count),
        "a tensor is larger than its storage",
    )
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: Any, *_: Any) -> _Tensor:
    _admit(isinstance(tensor, _Tensor), "a parameter is no tensor")
    return tensor


def _arrays(tree: Any, storages: dict[str, _Storage], data: dict[str, bytes]) -> dict:
    for key, storage in storages.items():
        _admit(
            len(data.get(key, b"")) == storage.count * storage.dtype.itemsize,
            f"storage {key} is truncated",
        )
    _admit(isinstance(tree, dict), "it holds no dictionary")
    if isinstance(tree.get("state_dict"), dict):
        tree = tree["state_dict"]
    found = {}
    for name, tensor in tree.items():
        _admit(isinstance(name, str) and isinstance(tensor, _Tensor), f"{name!r} is no tensor")
        key, storage = tensor.storage
        flat = np.frombuffer(data[key], storage.dtype)[tensor.offset :]
        step = storage.dtype.itemsize
        found[name] = np.lib.stride_tricks.as_strided(
            flat, tensor.shape, [s * step for s in tensor.strides]
        ).copy()
    return found
