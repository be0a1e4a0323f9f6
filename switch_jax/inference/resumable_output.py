"""Results that are written part by part, by one job or several, so that none is computed twice."""

import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from switch_jax.errors import UserError, storage_error
from switch_jax.files import atomic_write, explain_write_errors, open_atomic
from switch_jax.runtime.processes import gather, run_on_first


class Parts:
    """A file of JSON lines that grows in parts of so many records; FILE.parts holds them until all.

    A part is there whole or not at all. When all are there, FILE is made of them, in their order.
    With several processes all of them do the same, and the first writes.
    """

    def __init__(self, path: str | Path, records_of_a_part: int, description: Any) -> None:
        """Opens the folder of parts.

        Args:
          path: the file to be made.
          records_of_a_part: how many records, the last part's aside.
          description: what the results depend on, as JSON; the parts of others are not taken.

        Raises:
          UserError: the file is there, there are parts of another description, or nothing can be
            written.
        """
        self.path = Path(path).expanduser().absolute()
        self._folder = self.path.with_name(self.path.name + ".parts")
        self._size = records_of_a_part
        text = json.dumps(description, sort_keys=True, indent=1) + "\n"
        run_on_first(lambda: self._open(text))

    def _open(self, description: str) -> None:
        if self.path.exists():
            raise UserError(f"{self.path} is there already: choose another output, or remove it")
        file = self._folder / "description.json"
        with explain_write_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                atomic_write(file, description)
            known = file.read_text()
        if known != description:
            raise UserError(
                f"{self._folder} holds parts of other results (description.json there says which): "
                "choose another output, or remove that folder"
            )

    def fill(
        self,
        records: Iterable[Any],
        compute: Callable[[list[Any], int], Iterator[dict[str, Any]]],
        shard: int = 0,
        num_shards: int = 1,
    ) -> int:
        """Computes the parts that are missing, and makes the file when all are there.

        Args:
          records: all of them, of all jobs.
          compute: from a part's records, and the number of the first, to a result for each.
          shard, num_shards: this job does the parts whose number leaves `shard` over.

        Returns:
          How many results are missing, which other jobs have to compute; 0 = the file is made.

        Raises:
          UserError: nothing can be written.
        """
        remaining, parts, total = iter(records), 0, 0
        while part := list(itertools.islice(remaining, self._size)):
            if parts % num_shards == shard and not self._is_there(parts):
                lines = [json.dumps(r, ensure_ascii=False) for r in compute(part, total)]
                text, file = "".join(line + "\n" for line in lines), self._file(parts)
                run_on_first(lambda: self._write(file, text))  # noqa: B023  at once
            parts, total = parts + 1, total + len(part)
        missing = [n for n in range(parts) if not self._is_there(n)]
        if gather(self.path.exists())[0]:  # another job was as far at the same time
            return 0
        if missing:
            return sum(min(self._size, total - n * self._size) for n in missing)
        run_on_first(lambda: self._join(parts))
        return 0

    def _is_there(self, number: int) -> bool:
        """As the first process sees it, which alone writes."""
        return gather(self._file(number).exists())[0]

    def _write(self, file: Path, text: str) -> None:
        with explain_write_errors(file):
            atomic_write(file, text)

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:06d}.jsonl"

    def _join(self, parts: int) -> None:
        try:
            with open_atomic(self.path) as all_:
                for number in range(parts):
                    with self._file(number).open("rb") as part:
                        shutil.copyfileobj(part, all_)
        except OSError as error:
            if self.path.exists():  # another job made it, and removed the parts
                return
            message = f"{self.path} cannot be written: {error.strerror}"
            raise storage_error(message, error) from error
        shutil.rmtree(self._folder, ignore_errors=True)
