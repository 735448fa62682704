"""How much memory a piece of work holds at most, with all processes that it starts; on Linux.

Python's standard library only.
"""

import os
import re
import threading
import time
from pathlib import Path


def memory_of(process):
    """Return the bytes that a process and all below it hold, shared ones counted once; on Linux."""
    parents, held = {}, 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)] = int(fields[1])
        except OSError:
            continue  # it has ended meanwhile
    family = {process}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    for member in family:
        try:
            text = Path(f"/proc/{member}/smaps_rollup").read_text()
            held += 1024 * int(re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE)[1])
        except (OSError, TypeError):
            continue  # it has ended meanwhile, or is not ours
    return held


def peak_memory(function):
    """Return a function's value, and the most bytes that this process and all below it held while
    it ran, seen up to twice a second; None where that cannot be seen.

    Looking stops large processes for a moment, so it takes at most a fiftieth of the time.
    """
    peak, done = [0], threading.Event()

    def watch():
        pause = 0.5
        while not done.wait(pause):
            started = time.monotonic()
            peak.append(memory_of(os.getpid()))
            pause = max(0.5, 50 * (time.monotonic() - started))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        value = function()
    finally:
        done.set()
        watcher.join()
    return value, max(peak) or None
