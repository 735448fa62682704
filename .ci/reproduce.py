"""Run the quick profile twice, each time from nothing, and compare every number and every figure.

Both runs work in copies below build/reproduce/. With `--threads 1` the second run's libraries have
one thread each: how far that moves the numbers is then reported and is no failure. Started by
`make reproduce` and `make bench`, with .venv's Python.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from files import digest, replacing

ROOT = Path(__file__).resolve().parent.parent
# What a clock measured, when, and on which machine: the only things that may differ.
CLOCK = {
    "run_seconds",
    "resumed",
    "machine",
    "stock_seconds_an_image",
    "stock_days",
    "times_faster_than_memtorch",
    "times_slower_than_plain_network",
    "times_slower_than_channels_last",
}


def differences(one, other, place=""):
    """Where two results differ, CLOCK aside: `{place: (value, value)}`."""
    if isinstance(one, dict) and isinstance(other, dict):
        both = [key for key in one | other if key not in CLOCK]
        parts = [differences(one.get(k), other.get(k), f"{place}/{k}") for k in both]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        parts = [differences(*pair, f"{place}/{k}") for k, pair in pairs]
    else:
        same = type(one) is type(other) and (one == other or (one != one and other != other))
        return {} if same else {place: (one, other)}
    return {place: pair for part in parts for place, pair in part.items()}


def quick_run(folder, threads=None):
    """Run the quick profile in a copy of the project; return the folder of its figures."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    shutil.copy(ROOT / "coloredmnist.ipynb", folder)
    shutil.copytree(ROOT / "data" / "mnist", folder / "data" / "mnist")
    libraries = ("OMP", "MKL", "OPENBLAS", "NUMBA")
    limits = {f"{name}_NUM_THREADS": str(threads) for name in libraries} if threads else {}
    command = [ROOT / ".ci" / "run_notebook.py", "--root", folder, "--profile", "quick"]
    subprocess.run([sys.executable, *map(str, command)], env=os.environ | limits, check=True)
    return folder / "build" / "quick" / "figures"


def leaves(value):
    """How many single values results hold, CLOCK aside."""
    if isinstance(value, dict):
        return sum(leaves(part) for key, part in value.items() if key not in CLOCK)
    return sum(map(leaves, value)) if isinstance(value, list) else 1


def main():
    """Run, run again, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, help="of each library in the second run")
    parser.add_argument("--first", type=Path, help="figures/ of a quick run to take for the first")
    parser.add_argument("--record", type=Path, help="file for the counts, as JSON")
    options = parser.parse_args()
    work = ROOT / "build" / "reproduce"
    first = options.first or quick_run(work / "first")
    second = quick_run(work / "second", options.threads)
    one, other = (json.loads((f / "results.json").read_text("utf-8")) for f in (first, second))
    found = differences(one, other)
    figures = sorted(path.name for path in first.glob("*.p*"))
    changed = [name for name in figures if digest([first / name]) != digest([second / name])]
    for place, (left, right) in found.items():
        print(f"{place}: {left} and {right}")
    pairs = [(a, b) for a, b in found.values() if isinstance(a, float) and isinstance(b, float)]
    numbers = [abs(a - b) / max(abs(a), abs(b)) for a, b in pairs if a == a and b == b]
    largest = f", by at most {max(numbers):.1e} of their size" if numbers else ""
    print(f"{len(found)} of {leaves(one)} values differ{largest};", end=" ")
    print(f"{len(changed)} of {len(figures)} figures differ {changed or ''}")
    if options.record:
        record = {"values": leaves(one), "differ": len(found), "largest": max(numbers, default=0.0)}
        with replacing(options.record) as temporary:
            temporary.write_text(json.dumps(record), encoding="utf-8")
    return 0 if options.threads or not (found or changed) else 1


if __name__ == "__main__":
    sys.exit(main())
