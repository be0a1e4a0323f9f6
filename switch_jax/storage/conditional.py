"""Writing an object on the condition that nobody else has changed it since it was read."""

import abc
from typing import Any, NamedTuple

from etils import epath

from switch_jax.storage.clients import file_system
from switch_jax.storage.paths import bucket_path
from switch_jax.storage.ranges import as_of_a_disk, key_value_store


class Version(NamedTuple):
    """An object's content, None where it is not there, and what its next write depends on."""

    content: bytes | None
    token: Any


class SharedObject(abc.ABC):
    """An object that several processes write, each only what it has read before."""

    @abc.abstractmethod
    def read(self) -> Version:
        """Raises OSError if it cannot be read."""

    @abc.abstractmethod
    def _write(self, content: bytes, last: Version) -> Version | None:
        """As `write`; None also where an answer was lost and the repeated request refused."""

    def write(self, content: bytes, last: Version) -> Version | None:
        """Writes it.

        Args:
          content: the new content, unlike that of any other process.
          last: what it must still be.

        Returns:
          The new version; None: somebody else has changed it.

        Raises:
          OSError: it cannot be written.
        """
        written = self._write(content, last)
        if written is None:
            found = self.read()
            written = found if found.content == content else None
        return written


def shared_object(path: epath.Path) -> SharedObject:
    """The object at a path in a bucket."""
    return _OfCloudStorage(path) if str(path).startswith("gs://") else _OfS3(path)


class _OfCloudStorage(SharedObject):
    """By its generation, which grows with each write; 0: it is not there."""

    def __init__(self, path: epath.Path) -> None:
        self._client, (self._bucket, self._name) = file_system(path), bucket_path(str(path))

    def read(self) -> Version:
        return Version(*self._client.read_object(self._bucket, self._name))

    def _write(self, content: bytes, last: Version) -> Version | None:
        try:
            token = self._client.write_object(self._bucket, self._name, content, last.token)
        except FileExistsError:
            return None
        return Version(content, token)


class _OfS3(SharedObject):
    """By its ETag; TensorStore's for an object that is not there is a token of its own."""

    def __init__(self, path: epath.Path) -> None:
        self._url = str(path)
        bucket, self._name = bucket_path(self._url)
        self._store = key_value_store("s3", bucket)

    def read(self) -> Version:
        found = self._result(self._store.read(self._name))
        content = found.value if found.state == "value" else None
        return Version(content, found.stamp.generation)

    def _write(self, content: bytes, last: Version) -> Version | None:
        stamp = self._result(self._store.write(self._name, content, if_equal=last.token))
        return Version(content, stamp.generation) if stamp.generation else None

    def _result(self, future: Any) -> Any:
        try:
            return future.result()
        except ValueError as error:  # after TensorStore's own tries
            raise as_of_a_disk(error, self._url) from error
