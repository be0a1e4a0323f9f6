"""Folders as TFDS prepares them, with records of our own."""

import tensorflow_datasets as tfds

ANLI_RECORD = {"uid": "a1", "context": "It rains.", "hypothesis": "It snows.", "label": "c"}


def prepare(folder, name, config, version, records, num_shards=None):
    """Writes a data set in the schema of TFDS's; `records`: by split."""
    tfds.dataset_builders.AdhocBuilder(
        name=name,
        config=config,
        version=version,
        features=tfds.builder(f"{name}/{config}").info.features,
        split_datasets={split: list(enumerate(some)) for split, some in records.items()},
        data_dir=folder,
    ).download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=num_shards))
