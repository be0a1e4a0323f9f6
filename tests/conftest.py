"""Every test runs on eight virtual CPU devices: jax reads these variables when it is imported."""

import atexit
import gc
import os
import shutil
import sys
import tempfile
import uuid
from importlib.metadata import version
from unittest import mock

import pytest

# JAX's tracing makes many objects and few circles of them, so they are looked for seldom.
gc.set_threshold(50_000, 20, 50)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
    # Unoptimised machine code, made in one piece: the tests compile much and compute little.
    + " --xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
)
# An earlier way of generating code compiles in half of the time; jaxlib 0.12 does not have it.
HAS_EARLIER_CODE = version("jaxlib").startswith("0.10.")
if HAS_EARLIER_CODE:
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
# Programs are lowered without the Python stack of each operation, which takes less time; they
# also lose the names of scopes and kernels.
os.environ["JAX_INCLUDE_FULL_TRACEBACKS_IN_LOCATIONS"] = "0"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
# What is compiled again and again, in all files and processes, is read. pytest-xdist's processes
# inherit the folder of the one that starts them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="switch_jax_compiled_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
# However quick a program is to compile, it is quicker to read.
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


def pytest_collection_modifyitems(items):
    """Whole runs come first: at the end no process waits for another's long file."""
    items.sort(key=lambda item: "trainer" not in item.path.parts)


@pytest.fixture(autouse=True, scope="module")
def drop_compiled_programs():
    """After each file: JAX keeps all that it has compiled, which adds up to gigabytes."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


@pytest.fixture(autouse=True, scope="session")
def start_in_an_empty_folder(tmp_path_factory):
    """Also for what a module or a session sets up: no test sees what lies where it was started."""
    os.chdir(tmp_path_factory.mktemp("started_in"))


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Each test runs in a temporary folder of its own, and so do the commands that it calls."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def scopes_and_kernels_by_name():
    """Operations of compiled programs have the names that they have for users."""
    import jax

    jax.config.update("jax_include_full_tracebacks_in_locations", True)
    yield
    jax.config.update("jax_include_full_tracebacks_in_locations", False)


@pytest.fixture
def code_as_by_default(monkeypatch):
    """Programs compiled as for users: then two that differ a little compute the same bits.

    Those that a module jits when it is imported are not.
    """
    if not HAS_EARLIER_CODE:
        return
    import jax

    jit = jax.jit

    def jit_as_by_default(function, compiler_options=None, **options):
        compiler_options = {**(compiler_options or {}), "xla_cpu_use_fusion_emitters": True}
        return jit(function, compiler_options=compiler_options, **options)

    monkeypatch.setattr(jax, "jit", jit_as_by_default)


@pytest.fixture(scope="session")
def storage_proxy():
    """A proxy before a server of Cloud Storage's protocol, for all tests of a process."""
    from switch_jax.storage import choose_clients
    from tests.storage import gcs_server, slow_proxy

    # One for all: clients in this process keep the address that they were first given.
    with gcs_server.serve() as url, slow_proxy.serve(url) as proxy:
        with mock.patch.dict(os.environ, gcs_server.environment(proxy.url)):
            choose_clients()
            yield proxy


@pytest.fixture
def gcs_server(storage_proxy):
    """The URL of a server of Cloud Storage's protocol."""
    return storage_proxy.url


@pytest.fixture
def faulty_storage(storage_proxy):
    """The proxy before the buckets of the test, which may set its `faults`."""
    from tests.storage.slow_proxy import Faults

    yield storage_proxy
    storage_proxy.faults, storage_proxy.moves = Faults(), True


@pytest.fixture
def bucket_path(gcs_server):
    """A folder in a bucket, empty and each test's own."""
    from etils import epath

    return epath.Path("gs://bucket") / uuid.uuid4().hex


@pytest.fixture(params=["disk", "bucket"])
def storage(request):
    """An empty folder, on the disk and in a bucket: the test runs on both."""
    from etils import epath

    if request.param == "disk":
        return epath.Path(request.getfixturevalue("tmp_path"))
    return request.getfixturevalue("bucket_path")
