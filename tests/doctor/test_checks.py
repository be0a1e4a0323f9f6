"""How checks are run: what fails, what is left out, and several processes that agree."""

import subprocess
import sys

from switch_jax.doctor.checks import Check, Finding, Verdict, run_checks
from switch_jax.errors import UserError
from tests.trainer.worker_processes import ROOT, free_port, without_virtual_devices


def good(name):
    return Check(name, lambda: Finding(Verdict.OK, "fine"))


def bad(name, error):
    def run():
        raise error

    return Check(name, run)


def test_a_check_that_raises_has_failed_and_the_others_run():
    raised = [bad("a", UserError("no room")), bad("b", ValueError("odd\nmore")), good("c")]
    assert list(map(str, run_checks(raised))) == [
        "failed   a: no room",
        "failed   b: ValueError: odd",
        "ok       c: fine",
    ]


def test_quick_leaves_out_what_is_long():
    long = Check("long", good("long").run, is_long=True)
    assert [f.name for f in run_checks([good("a"), long, good("b")], quick=True)] == ["a", "b"]
    assert len(list(run_checks([long]))) == 1


def test_advice_is_for_what_has_failed():
    assert str(Finding(Verdict.OK, "fine", {}, "do this", "a")) == "ok       a: fine"
    assert str(Finding(Verdict.FAILED, "bad", {}, "do this", "a")) == "failed   a: bad; do this"


# Two processes, of which the second has another finding, raises, or waits for the first in vain.
PROGRAM = """
import sys, time
from switch_jax.doctor import checks
from switch_jax.doctor.checks import Check, Finding, Verdict, run_checks
from switch_jax.errors import UserError
from switch_jax.runtime import processes

port, index, apart = sys.argv[1:]
processes.connect(f"localhost:{port}", 2, int(index))
checks._MOST_APART = int(apart)

def found():
    failed = index == "1"
    return Finding(Verdict.FAILED if failed else Verdict.OK, f"by {index}", {}, "help it")

def raised():
    if index == "1":
        raise UserError("mine alone")
    return Finding(Verdict.OK, "fine")

def together():
    return Finding(Verdict.OK, str(processes.gather(int(index))))

def late():
    if index == "0":
        time.sleep(4)
    return Finding(Verdict.OK, "at last")

try:
    for finding in run_checks([Check(f.__name__, f) for f in (found, raised, together, late)]):
        print(finding, flush=True)
except UserError as error:
    print("error:", error, flush=True)
"""


def run_both(apart):
    """The lines of each of two processes."""
    port = str(free_port())
    both = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, port, str(index), str(apart)],
            cwd=ROOT,
            env=without_virtual_devices(),
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in (0, 1)
    ]
    try:
        printed = [process.communicate(timeout=90)[0].splitlines() for process in both]
        return [[line for line in lines if "[Gloo]" not in line] for lines in printed]
    finally:
        for process in both:
            process.kill()


def test_what_fails_on_one_process_has_failed_on_all():
    lines = run_both(apart=60)
    assert lines[0] == lines[1] == [
        "failed   found: on process 1: by 1; help it",
        "failed   raised: on process 1: mine alone",
        "ok       together: [0, 1]",
        "ok       late: at last",
    ]  # fmt: skip


def test_a_process_does_not_wait_forever_for_another():
    _, lines = run_both(apart=2)
    assert lines[-1] == (
        "error: another process did not end the check 'late' within 2 seconds of this one; run "
        "`switch_jax doctor` on each host alone, without --multihost"
    )
