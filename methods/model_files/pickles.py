"""Tells files that run code when a library loads them, by their names and by how they begin."""

from __future__ import annotations

import io
import pickletools
import tarfile
import zipfile
from itertools import islice
from pathlib import Path, PurePosixPath

PICKLED = frozenset(
    (
        ".bin",
        ".pt",
        ".pth",
        ".ckpt",
        ".pkl",
        ".pickle",
        ".p",
        ".dill",
        ".cloudpickle",
        ".joblib",
        ".npz",
        ".nemo",
    )
)
"""Endings of files that Python's pickle writes, or may have written."""
COMPRESSED = frozenset((".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip", ".tar"))
CODE = frozenset(
    (
        ".py",
        ".pyw",
        ".pyc",
        ".pyo",
        ".pyd",
        ".pyx",
        ".pyz",
        ".so",
        ".dll",
        ".dylib",
        ".exe",
        ".sh",
        ".whl",
        ".egg",
    )
)
"""Endings of programs and of libraries that a program loads."""

HEAD_BYTES = 65_536
"""Of each file: what is looked at. A pickle imports what it calls near its beginning."""
MAX_MEMBERS = 10_000
"""Names that are read of an archive; no archive of a model's documents has so many. Chosen, not measured."""

PICKLE_START = b"\x80"
PROTOCOLS = range(2, 10)
"""Of pickles that say their protocol; Python 3.11 writes 2 to 5."""
IMPORTS = frozenset(("GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"))
"""Operations of a pickle that name something to be called."""
TAR_MARK = (257, b"ustar")
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
TORCH_MEMBERS = frozenset(("data.pkl", "pickle", "constants.pkl"))
"""Names of the pickle in archives that torch.save wrote."""


def name_is_pickled(name: str) -> bool:
    """Tells whether a file of this name is a pickle, compressed or not."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    while len(suffixes) > 1 and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in PICKLED


def name_is_code(name: str) -> bool:
    """Tells whether a file of this name is a program; libraries may end in a version (`libx.so.1`)."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    while len(suffixes) > 1 and suffixes[-1][1:].isdigit():
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in CODE


def foreign_kind(path: Path) -> str | None:
    """Says what a file is by how it begins, where it may not be in a model folder. Raises `OSError`."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(LFS_POINTER):
        return "is a pointer of Git LFS and not the file itself: fetch it with `git lfs pull`"
    if head.startswith(b"\x7fELF"):
        return "is a program"
    if is_pickle(head) or _holds_pickled_objects(head):
        return "begins like a pickle; pickled files run code when they are loaded: remove it"
    if _is_archive_with_pickle(path, head):
        return "is an archive with a pickle in it; pickled files run code when they are loaded: remove it"
    return None


def is_pickle(head: bytes) -> bool:
    """Tells whether a file that begins so is a pickle that may call something, of any protocol."""
    if head[:1] == PICKLE_START and len(head) > 1 and head[1] in PROTOCOLS:
        return True
    stream = io.BytesIO(head)
    imports = False
    try:
        for operation, _, _ in pickletools.genops(stream):
            imports = imports or operation.name in IMPORTS
    except Exception:  # no more of it is a pickle; or it is one, and longer than what was read
        return imports and len(head) == HEAD_BYTES and stream.tell() == len(head)
    return imports


def _holds_pickled_objects(head: bytes) -> bool:
    """Tells whether a numpy array (.npy) holds Python objects, which are pickled in it."""
    return head.startswith(b"\x93NUMPY") and b"|O" in head[:256]


def _is_archive_with_pickle(path: Path, head: bytes) -> bool:
    place, mark = TAR_MARK
    try:
        if head[place : place + len(mark)] == mark:
            with tarfile.open(path, "r:") as archive:
                names = [member.name for member in islice(archive, MAX_MEMBERS + 1)]
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        else:
            return head.startswith(b"PK\x03\x04")  # one that only a lenient reader opens
    except (tarfile.TarError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return True  # a reader that is less strict may find in it what this one does not
    if len(names) > MAX_MEMBERS:
        return True
    return any(PurePosixPath(name).name in TORCH_MEMBERS or name_is_pickled(name) for name in names)
