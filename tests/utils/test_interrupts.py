import signal
import subprocess
import sys
import time

from switch_jax.utils.interrupts import ended_at_once

# Derives a key for hours, without a look at Python's signals.
PROGRAM = """
import hashlib, pathlib, signal, sys
from switch_jax.utils.interrupts import ended_at_once
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
with ended_at_once(lambda: pathlib.Path(sys.argv[1]).touch()):
    print("begun", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


def test_ctrl_c_ends_code_that_python_cannot_interrupt(tmp_path):
    cleaned = tmp_path / "cleaned"
    command = [sys.executable, "-c", PROGRAM, str(cleaned)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "begun\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, error) == (130, "\nstopped\n")
    assert cleaned.exists()


def test_afterwards_signals_are_python_s_own_again():
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    with ended_at_once(lambda: None):
        assert signal.set_wakeup_fd(signal.set_wakeup_fd(-1)) == -1
    after = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(after)
    assert after == before
