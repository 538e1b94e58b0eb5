"""Tables of uploaded and produced files, and of bytes that are no file. Bytes live in storage under a key."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base

MAX_NAME_SHOWN = 100
"""Characters of a filename that a message shows."""


def named(file_id: str, filename: str) -> str:
    """Returns a file's id with its name, as messages show them."""
    return f"{file_id} ({filename[:MAX_NAME_SHOWN]})"


class File(Base):
    __tablename__ = "files"
    __table_args__ = (Index("ix_files_project_created", "project_id", "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    """file-..."""
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    filename: Mapped[str]
    """As the client named it, cleaned; never used as a path."""
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    purpose: Mapped[str]
    status: Mapped[str] = mapped_column(default="processed")
    storage_key: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]

    @property
    def shown(self) -> str:
        """Returns how messages name it: its id, and what its owner calls it."""
        return named(self.id, self.filename)


class LooseBytes(Base):
    """A place in storage whose bytes, if there are any, are no file: not yet, or not any more.

    It is written before the bytes and deleted with the row that speaks of them, so that the sweep finds what
    a process left that died in between.
    """

    __tablename__ = "loose_bytes"

    key: Mapped[str] = mapped_column(primary_key=True)
    """Of one object, or of a folder if it ends in a slash."""
    clear_at: Mapped[datetime] = mapped_column(index=True)
    """When the sweep takes them, unless they became a file."""
    is_taken: Mapped[bool] = mapped_column(default=False)
    """The sweep is removing them, so that they can become no file any more."""
