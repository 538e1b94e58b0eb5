"""Archives: what tar reads out of them, and any range of their bytes."""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.exports.archive import Archive, Member, in_memory
from app.files.integrity import StoredFileDamaged
from tests.properties import examples

NAMES = st.text("abcé/._-", min_size=1, max_size=150).filter(lambda name: name[-1] != "/")
FILES = st.dictionaries(NAMES, st.binary(max_size=1500), max_size=4)


def archive(files: dict[str, bytes]) -> Archive:
    return Archive("a.tar", [in_memory(name, data) for name, data in files.items()], 1_700_000_000)


def in_pieces(name: str, data: bytes, sha256: str) -> Member:
    """A member whose bytes come a few at a time, as out of storage."""
    return Member(
        name,
        len(data),
        lambda start: (data[at : at + 7] for at in range(start, len(data), 7)),
        sha256,
    )


@examples(60)
@given(FILES, st.integers(0, 9000), st.integers(0, 9000))
def test_any_range_is_that_of_the_whole(files: dict[str, bytes], first: int, length: int) -> None:
    made = Archive(
        "a.tar",
        [in_pieces(name, data, hashlib.sha256(data).hexdigest()) for name, data in files.items()],
        1_700_000_000,
    )
    whole = b"".join(made.chunks(0, made.size))
    assert len(whole) == made.size
    assert hashlib.sha256(whole).digest() == made.digest()
    assert b"".join(made.chunks(first, first + length)) == whole[first : first + length]
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == list(files)
        assert [tar.extractfile(each).read() for each in members] == list(files.values())


def test_the_same_files_are_the_same_bytes() -> None:
    one, same = archive({"a": b"x", "b": b"y"}), archive({"a": b"x", "b": b"y"})
    assert one.recipe() == same.recipe()
    assert b"".join(one.chunks(0, one.size)) == b"".join(same.chunks(0, same.size))
    assert archive({"a": b"x", "b": b"z"}).recipe() != one.recipe()


@pytest.mark.parametrize("data", [b"changed!", b"short", b"longer than it was"])
def test_a_member_that_has_changed_has_no_digest(data: bytes) -> None:
    was = b"as it is"
    changed = Member("m", len(was), lambda start: iter((data[start:],)), hashlib.sha256(was).hexdigest())
    with pytest.raises(StoredFileDamaged, match="m has changed"):
        Archive("a.tar", [changed], 0).digest()
