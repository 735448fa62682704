"""What `make bench` sees of memory."""

import subprocess
import sys

import pytest
from bench import memory_of, peak_memory

HOLD = """
import time
held = bytearray(b"x" * {bytes})
print("held", flush=True)
time.sleep({seconds})
"""


def holding(megabytes, seconds):
    """A process that holds so much for a while."""
    code = HOLD.format(bytes=megabytes * 2**20, seconds=seconds)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    with process.stdout as said:
        said.readline()
    return process


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_memory_of_a_process_and_of_those_below():
    """A child's memory counts; one that has ended no longer does."""
    child = holding(200, 60)
    held = memory_of(child.pid)
    assert 200 * 2**20 < held < 260 * 2**20
    child.kill()
    child.wait()
    assert memory_of(child.pid) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_peak_memory_is_the_most_that_was_held():
    """Of two children one after the other, the larger."""

    def work():
        for megabytes in (300, 50):
            holding(megabytes, 1.2).wait()
        return "done"

    value, peak = peak_memory(work)
    _, now = peak_memory(lambda: holding(1, 1.2).wait())
    assert value == "done"
    assert peak - now == pytest.approx(300 * 2**20, rel=0.1)
