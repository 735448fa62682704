"""How much memory a piece of work holds at most, with all processes that it starts."""

import os
import threading
import time

import psutil


def held_by(process):
    """Return the bytes of one process: its share of pages (Linux), or the pages that are its own;
    0 if it has ended or is not ours."""
    try:
        held = process.memory_full_info()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
    return getattr(held, "pss", held.uss)


def memory_of(pid):
    """Return the bytes that a process and all below it hold; 0 if it has ended."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    return sum(map(held_by, family))


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
