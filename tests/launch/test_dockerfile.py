"""No image can be built here; what the file takes from the checkout is there, in its order."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = re.sub(r"\\\n\s*", " ", (ROOT / "launch/Dockerfile").read_text())
LINES = [line for line in TEXT.splitlines() if line and not line.startswith("#")]


def test_it_installs_what_is_locked_then_the_tpu_s_library_then_switch_jax():
    (install,) = [line for line in LINES if "--requirement requirements.txt" in line]
    assert "pip install --no-cache-dir --no-deps --requirement requirements.txt" in install
    assert '--constraint requirements.txt "jax[tpu]"' in install.partition("&& pip")[2]
    order = [i for i, line in enumerate(LINES) if line == install or line.endswith("isolation .")]
    assert len(order) == 2
    assert LINES.index("COPY requirements.txt ./") < order[0]
    assert order[0] < LINES.index("COPY . ./") < order[1]


def test_what_it_takes_from_the_checkout_is_there():
    taken = [shlex.split(line)[1] for line in LINES if line.startswith("COPY")]
    programs = dict(re.findall(r"\binstall (launch/\S+) /usr/local/bin/(\S+)", TEXT))
    assert programs == {"launch/with_secrets.py": "with_secrets"}
    assert taken and all((ROOT / path).exists() for path in [*taken, *programs])
