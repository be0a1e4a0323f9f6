"""How checks are run: what fails, what is skipped, and two processes that agree."""

import subprocess
import sys
from unittest.mock import Mock

import numpy as np
import pytest

from switch_jax.doctor.checks import Failed, Skipped, check_close, run_checks
from switch_jax.utils.errors import UserError
from tests.trainer.worker_processes import ROOT, free_port, without_virtual_devices
from tests.waiting import HANGS


def test_a_check_that_raises_has_failed_and_the_others_run():
    checks = {
        "a": Mock(side_effect=Failed("3 of 4")),
        "b": Mock(side_effect=UserError("no room")),
        "c": Mock(side_effect=ValueError("odd\nmore")),
        "d": Mock(side_effect=Skipped("no such device")),
        "e": lambda: "fine",
    }
    assert list(map(str, run_checks(checks))) == [
        "failed   a: 3 of 4",
        "failed   b: no room",
        "failed   c: ValueError: odd",
        "skipped  d: no such device",
        "passed   e: fine",
    ]


@pytest.mark.parametrize(
    "found, apart", [([1.0, -4.1], "2.5e-02"), ([np.nan, -4.0], "nan"), ([1.0, np.inf], "inf")]
)
def test_a_difference_is_relative_to_the_largest_number(found, apart):
    found, expected = ({"a": np.array(x), "b": np.zeros(2)} for x in (found, [1.0, -4.0]))
    with pytest.raises(Failed, match=f"it differs by {apart} from theirs, 2e-02 is allowed"):
        check_close(found, expected, 0.02, "theirs")
    assert "2e-01 is allowed" in check_close(expected, expected, 0.2, "theirs")


# Two processes, of which the second has another finding, or waits for the first in vain.
PROGRAM = """
import sys
from switch_jax.doctor import checks
from switch_jax.runtime import multihost
from switch_jax.utils.errors import UserError

port, index = sys.argv[1], int(sys.argv[2])
multihost.connect(f"localhost:{port}", 2, index)

def found():
    if index == 1:
        raise checks.Failed("by 1")
    return "by 0"

def together():
    return str(multihost.gather(index))

def late():
    checks._MOST_APART = 1
    if index == 0:
        sys.stdin.read()  # until the second has given up
    return "at last"

try:
    for finding in checks.run_checks({f.__name__: f for f in (found, together, late)}):
        print(finding, flush=True)
except UserError as error:
    print("error:", error, flush=True)
"""


def test_what_fails_on_one_process_has_failed_on_all_and_none_waits_forever():
    command = [sys.executable, "-c", PROGRAM, str(free_port())]
    options = {"cwd": ROOT, "env": without_virtual_devices(), "text": True}
    options |= {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    first, second = (subprocess.Popen([*command, index], **options) for index in "01")
    of_second = []
    try:
        for line in second.stdout:
            of_second.append(line)
            if line.startswith("error:"):
                break
        of_first = first.communicate(timeout=HANGS)[0].splitlines()
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()
    of_first, of_second = (
        [line.strip() for line in lines if "[Gloo]" not in line] for lines in (of_first, of_second)
    )
    same = ["failed   found: on process 1: by 1", "passed   together: [0, 1]"]
    assert of_first[:2] == of_second[:2] == same
    assert of_second[2:] == [
        "error: another process did not end a check within 1 seconds of this one, where it has "
        "passed: late: at last"
    ]
