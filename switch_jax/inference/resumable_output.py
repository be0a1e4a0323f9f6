"""An output file that is written in parts, so that a stopped job continues where it was."""

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from switch_jax.run_folder.records import parse_object
from switch_jax.runtime.multihost import from_first, run_on_first
from switch_jax.storage import (
    atomic_write,
    exists,
    explain_write_errors,
    open_atomic,
    read_bytes,
    storage_path,
    write_file,
)
from switch_jax.utils.differences import differences, listed
from switch_jax.utils.errors import UserError, storage_error
from switch_jax.utils.terminal import say


class ResumableOutput:
    """A file of JSON lines, whose results are first collected in the folder FILE.parts.

    Each file in that folder holds the results of `part_size` consecutive records and is written
    atomically. When all parts exist they are joined, in order, to FILE. Several jobs may share the
    parts. If a job has several processes, all of them make the same calls and the first one writes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        part_size: int,
        options: Mapping[str, Any],
        versions: Mapping[str, Any],
        shard: int = 0,
        num_shards: int = 1,
    ) -> None:
        """Creates the folder of parts, or opens that of an earlier job.

        The results depend, as JSON, on `options`, which the user chose, and on `versions`, which
        change under the same command: of the input, of the newest checkpoint. Where the parts have
        other versions, the job starts again from the first part, and says so. This job computes
        every part i with i % num_shards == shard. Raises UserError where the file exists or cannot
        be written, the parts have other options or another size, or other versions and there are
        several jobs, since another one may be at work.
        """
        self.path = storage_path(path, "--output")
        self._folder = self.path.with_name(self.path.name + ".parts")
        self._part_size, self._shard, self._num_shards = part_size, shard, num_shards
        description = {**options, "part_size": part_size, **versions}
        text = json.dumps(description, sort_keys=True, indent=1) + "\n"
        # Parts of other results may lie in the same folder, and be written to it by another job.
        self._digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        run_on_first(lambda: self._open(text, set() if num_shards > 1 else set(versions)))

    def _open(self, description: str, may_differ: set[str]) -> None:
        if exists(self.path):
            raise UserError(f"{self.path} already exists: choose another output, or remove it")
        file = self._folder / "description.json"
        with explain_write_errors(self._folder):
            # Empty where it is damaged: parts are told apart by their names.
            existing = parse_object(read_bytes(file)) if exists(file) else {}
        ours = json.loads(description)
        if existing == ours:
            return
        if existing:
            found = listed(differences(existing, ours))
            if any(existing.get(n) != ours.get(n) for n in {*existing, *ours} - may_differ):
                raise UserError(
                    f"{self._folder} holds parts of other results ({found}): take the same input "
                    "and options, choose another output, or remove that folder"
                )
            say(f"{self._folder} has parts of other results ({found}): the output begins anew")
        write_file(file, description, str(self._folder))

    def fill(
        self, records: Iterable[Any], compute: Callable[[list[Any], int], Iterator[dict[str, Any]]]
    ) -> int:
        """Computes the missing parts of this job, and writes the file once all parts exist.

        `records` are those of all jobs. `compute` takes the records of a part and the index of the
        first, and gives a result for each. Returns how many results other jobs have to compute, 0
        once the file is written; UserError where a file cannot be written.
        """
        remaining, num_parts, num_records = iter(records), 0, 0
        while part := list(itertools.islice(remaining, self._part_size)):
            is_ours = num_parts % self._num_shards == self._shard
            if is_ours and not self._has_part(num_parts):
                lines = [json.dumps(r, ensure_ascii=False) for r in compute(part, num_records)]
                text, file = "".join(line + "\n" for line in lines), self._part_file(num_parts)
                run_on_first(lambda: self._write(file, text))  # noqa: B023  called at once
            num_parts, num_records = num_parts + 1, num_records + len(part)
        missing = [index for index in range(num_parts) if not self._has_part(index)]
        if from_first(lambda: exists(self.path)):  # another job has joined the parts meanwhile
            return 0
        if missing:
            size = self._part_size
            return sum(min(size, num_records - index * size) for index in missing)
        run_on_first(lambda: self._join(num_parts, num_records))
        return 0

    def _has_part(self, index: int) -> bool:
        """Whether the first process, which alone writes, sees the part."""
        return from_first(lambda: exists(self._part_file(index)))

    def _write(self, file: epath.Path, text: str) -> None:
        """Writes a part, but makes no folder: a job that has joined all parts has removed it."""
        with explain_write_errors(file):
            atomic_write(file, text)

    def _part_file(self, index: int) -> epath.Path:
        return self._folder / f"{index:06d}-{self._digest}.jsonl"

    def _join(self, num_parts: int, num_records: int) -> None:
        num_lines = 0
        try:
            with open_atomic(self.path) as output:
                for index in range(num_parts):
                    with self._part_file(index).open("rb") as part:
                        for line in part:
                            output.write(line)
                            num_lines += 1
                if num_lines != num_records:
                    raise UserError(
                        f"{self._folder} has {num_lines} results for {num_records} records: its "
                        "parts were changed, or the input was; remove that folder, and start again"
                    )
        except OSError as error:
            if exists(self.path):  # another job has joined and removed the parts
                return
            message = f"{self.path} cannot be written: {error.strerror or error}"
            raise storage_error(message, error) from error
        with contextlib.suppress(OSError):
            self._folder.rmtree()
