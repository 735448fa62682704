"""What `make run` and `make bench` see of memory, and memory that a process keeps."""

import inspect
import os
import platform
import subprocess
import sys
import time

import pytest

from tools import memory
from tools.files import ROOT
from tools.memory import memory_of

HOLD = """
import time
held = bytearray({bytes})
held[::1024] = b"x" * len(held[::1024])  # a page is there once it was written to
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


@pytest.mark.slow
def test_memory_of_a_process_and_of_those_below():
    """A child's memory counts; one that has ended no longer does."""
    child = holding(200, 60)
    held = memory_of(child.pid)
    assert 200 * 2**20 < held < 260 * 2**20
    child.kill()
    child.wait()
    assert memory_of(child.pid) == 0


PEAK = f"""
import subprocess, sys
from tools.memory import peak_memory
def hold(megabytes):
    code = {HOLD!r}.format(bytes=megabytes * 2**20, seconds=1.2)
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    return megabytes
_, least = peak_memory(lambda: hold(1))
value, most = peak_memory(lambda: hold(300) + hold(50))
print(value, most - least)
"""


@pytest.mark.slow
def test_peak_memory_is_the_most_that_was_held():
    """Of two children one after the other, the larger; in a process without other children."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    value, more = map(int, done.stdout.split())
    assert value == 350
    assert more == pytest.approx(299 * 2**20, rel=0.1)


KEPT = """
import contextlib, ctypes, resource, sys
import torch

exec(sys.argv[1])

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(4_000_000)  # 16 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = pages()
keep_freed_memory()
pages()
print(before, pages())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_kept(nb):
    """The pages of a large tensor are asked for once, not each time that one is made."""
    done = subprocess.run(
        [sys.executable, "-c", KEPT, inspect.getsource(nb.keep_freed_memory)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    before, after = map(int, done.stdout.split())
    assert before > 1_000 and after < before / 20, (before, after)


@pytest.mark.slow
def test_watching_takes_a_small_part_of_the_time(monkeypatch):
    """However long a look takes: after one of a quarter of a second there is no second for long."""
    looks = []
    monkeypatch.setattr(memory, "memory_of", lambda _: time.sleep(0.25) or looks.append(1) or 7)
    assert memory.peak_memory(lambda: time.sleep(1.5)) == (None, 7)
    assert len(looks) == 1
