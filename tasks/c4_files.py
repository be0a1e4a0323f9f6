"""The files of allenai/c4, in which the pages of C4 and mC4 are lines of JSON."""

import os
from collections.abc import Mapping

import seqio
import tensorflow as tf

from switch_jax.tasks.building_blocks import parse_json_lines


def read_pages(path: tf.Tensor) -> tf.data.Dataset:
    """The 'text' of each page of a file, which is gzipped if its name ends with .gz."""
    is_gzipped = tf.strings.regex_full_match(path, r".*\.gz")
    lines = tf.data.TextLineDataset(path, tf.where(is_gzipped, "GZIP", ""))
    return parse_json_lines(lines, ["text"])


class C4Files(seqio.FileDataSource):
    """Pages from a copy of allenai/c4, in the folder or bucket that C4_JSON_DIR names.

    A file may be there as NAME.json.gz, as one downloads it, or decompressed as NAME.json, which
    can be cut; where both are, the second is read.
    """

    def __init__(self, names: Mapping[str, str], folder: str = "") -> None:
        """`names` has a pattern of the NAMEs of each split, below the folder."""
        self._names = names
        patterns = {
            split: [os.path.join(folder, name + end) for end in (".json", ".json.gz")]
            for split, name in names.items()
        }
        super().__init__(read_pages, patterns)

    def in_folder(self, folder: str) -> "C4Files":
        """The same files in another folder."""
        return C4Files(self._names, folder)

    def list_shards(self, split: str) -> list[str]:
        found = set(super().list_shards(split))
        return sorted(file for file in found if file.removesuffix(".gz") not in found - {file})
