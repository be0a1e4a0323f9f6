"""Writes an object on the condition that nobody else has changed it since it was read."""

from typing import NamedTuple

from etils import epath

from switch_jax.storage.clients import file_system
from switch_jax.storage.paths import bucket_path
from switch_jax.utils.errors import UserError


class Version(NamedTuple):
    """The content of an object and its generation, which grows with each write; 0: it is absent."""

    content: bytes | None = None
    generation: int = 0


class SharedObject:
    """An object of Cloud Storage that several processes write, each over the version it has read.

    Raises UserError for the path of another storage.
    """

    def __init__(self, path: epath.Path) -> None:
        if not str(path).startswith("gs://"):
            raise UserError(f"{path}: what a run writes goes to a disk or to gs://BUCKET/...")
        self._client, (self._bucket, self._name) = file_system(path), bucket_path(str(path))

    def read(self) -> Version:
        """Reads the object; raises OSError if that fails."""
        try:
            headers, content = self._client.call(
                "GET", "b/{}/o/{}", self._bucket, self._name, alt="media"
            )
        except FileNotFoundError:
            return Version()
        return Version(content, int(headers["X-Goog-Generation"]))

    def write(self, content: bytes, last: Version) -> Version | None:
        """Writes the object and returns its new version; None if it is not `last` any more.

        `content` must be unlike that of any other process. Raises OSError if it cannot be written.
        """
        try:
            answer = self._client.call(
                "POST",
                f"{self._client._location}/upload/storage/v1/b/{{}}/o",
                self._bucket,
                name=self._name,
                uploadType="media",
                ifGenerationMatch=str(last.generation),
                data=content,
                json_out=True,
            )
        except FileExistsError:  # or the first answer was lost, and the repeated request refused
            found = self.read()
            return found if found.content == content else None
        return Version(content, int(answer["generation"]))
