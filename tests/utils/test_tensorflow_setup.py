"""TensorFlow is loaded only where it is needed, without output and away from the accelerators."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import switch_jax

LIBRARY = Path(switch_jax.__file__).parent
SET_UP = LIBRARY / "utils/tensorflow_setup.py"
WITHOUT_TENSORFLOW = [
    "switch_jax.config",
    "switch_jax.model",
    "switch_jax.data.packing",
    "switch_jax.data.reading.epoch_order",
    "switch_jax.data.reading.file_chunks",
    "switch_jax.data.reading.position",
    "switch_jax.data.reading.prefetch",
    "switch_jax.data.span_corruption.stateless_random",
]


def run(code):
    """Exit code and output of a program in a fresh process."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    return done.returncode, done.stdout, done.stderr


def test_model_and_config_are_imported_without_tensorflow():
    loaded = "{'tensorflow', 'seqio', 'gin'} & set(sys.modules)"
    code = f"import sys, {', '.join(WITHOUT_TENSORFLOW)}; assert not {loaded}, {loaded}"
    assert run(code) == (0, "", "")


def top_level_imports(file):
    """The packages that a module imports anywhere, by their first name."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_only_the_set_up_imports_tensorflow_at_the_top_of_a_module():
    direct = {
        file.relative_to(LIBRARY).as_posix(): sorted(found)
        for file in LIBRARY.rglob("*.py")
        if file != SET_UP
        and (
            found := {"tensorflow", "seqio", "t5", "tensorflow_datasets"}
            & set(top_level_imports(file))
        )
    }
    # Apache Beam's part of seqio, in functions.
    assert direct == {
        file: ["seqio"] for file in ("data/catalogue/caching.py", "data/reading/seqio_internals.py")
    }


def test_all_tasks_are_registered_without_output_and_without_a_network():
    code = (
        "import os, socket, sys\n"
        "def refuse(*args): raise AssertionError('a connection was tried')\n"
        "socket.socket.connect = refuse\n"
        "from switch_jax.data.catalogue import registry\n"
        "from switch_jax.utils.tensorflow_setup import tf\n"
        "assert {'mc4', 'glue_v002_proportional'} <= set(registry.names())\n"
        "assert not {'matplotlib', 'pandas'} & set(sys.modules)\n"
        "import matplotlib\n"  # it can be loaded afterwards
        "assert not tf.config.get_visible_devices('GPU')\n"
        "assert os.environ['TF_ENABLE_ONEDNN_OPTS'] == '0'\n"
        "assert tf.config.optimizer.get_experimental_options()['disable_meta_optimizer']\n"
    )
    assert run(code) == (0, "", "")


def test_messages_are_shown_if_loading_fails():
    code = (
        "import os, sys\n"
        "class Failing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'tensorflow':\n"
        "            os.write(2, b'from C++')\n"
        "            raise ImportError('no tensorflow')\n"
        "sys.meta_path.insert(0, Failing())\n"
        "import switch_jax.utils.tensorflow_setup\n"
    )
    code, printed, errors = run(code)
    assert (code, printed) == (1, "")
    assert errors.startswith("from C++") and errors.rstrip().endswith("ImportError: no tensorflow")
