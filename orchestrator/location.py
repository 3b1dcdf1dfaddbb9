"""A file or folder in a storage, whatever kind of storage that is."""

from __future__ import annotations

from dataclasses import dataclass

from results.storage import StorageLike, SweepStorage, open_sweep_storage

__all__ = ["Location", "location"]


@dataclass(frozen=True)
class Location:
    """A place in a storage. Every method raises OSError when the storage fails; what is read or written is whole."""

    storage: SweepStorage
    relative: str  # to the root, with forward slashes

    def __str__(self) -> str:
        return f"{self.storage}/{self.relative}"

    def __truediv__(self, part: str) -> Location:
        return Location(self.storage, f"{self.relative}/{part}")

    @property
    def name(self) -> str:
        """The last part."""
        return self.relative.rpartition("/")[2]

    @property
    def parent(self) -> Location:
        """The folder that it is in."""
        return Location(self.storage, self.relative.rpartition("/")[0])

    @property
    def path(self) -> str:
        """As the storage's own methods take it."""
        return self.storage.path(self.relative)

    def with_name(self, name: str) -> Location:
        """Its neighbour of that name."""
        return self.parent / name

    def read(self) -> bytes:
        """The content. Raises FileNotFoundError."""
        return self.storage.read(self.path).to_pybytes()  # type: ignore[no-any-return]

    def write(self, content: bytes, *, unique: str | None = None) -> None:
        """Replaces the content; `unique` names the temporary file where there is one."""
        self.storage.write(self.path, content, unique=unique)

    def create(self, content: bytes) -> bool:
        """Writes a file that must not exist yet; False when it does. `content` must be this writer's own."""
        return self.storage.create(self.path, content)

    def remove(self) -> None:
        """Removes the file; one that is gone is no error."""
        self.storage.remove(self.path)

    def exists(self) -> bool:
        """True when there is such a file."""
        try:
            self.modified()
        except FileNotFoundError:
            return False
        return True

    def modified(self) -> float:
        """When it was written, seconds since the epoch by the storage's clock. Raises FileNotFoundError."""
        return self.storage.modified(self.path)

    def names(self) -> list[str]:
        """The names of the files in this folder; none when it does not exist."""
        return self.storage.names(self.relative)


def location(storage: StorageLike, relative: str) -> Location:
    """The place `relative` in a storage, which may be named."""
    return Location(open_sweep_storage(storage), relative)
