"""Run the quick profile twice, each time from nothing, and compare every number and every figure.

Both runs work in copies below build/reproduce/. Started by `make reproduce`.
"""

import re
import shutil
import subprocess
import sys

from .files import ROOT, copy_project, digest, read_json

# Keys of what a clock measured, when, and on which machine: the only things that may differ.
CLOCK = re.compile(
    r"(\w+_)?seconds(_\w+)?|times_(faster|slower)_\w+|memtorch_ratio|resumed|machine"
)


def differences(one, other, place=""):
    """Where two results differ, CLOCK aside: `{place: (value, value)}`."""
    if isinstance(one, dict) and isinstance(other, dict):
        both = [key for key in one | other if not CLOCK.fullmatch(key)]
        parts = [differences(one.get(k), other.get(k), f"{place}/{k}") for k in both]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        parts = [differences(*pair, f"{place}/{k}") for k, pair in pairs]
    else:
        same = type(one) is type(other) and (one == other or (one != one and other != other))
        return {} if same else {place: (one, other)}
    return {place: pair for part in parts for place, pair in part.items()}


def quick_run(folder):
    """Run the quick profile in a copy of the project; return the folder of its figures."""
    shutil.rmtree(folder, ignore_errors=True)
    copy_project(ROOT, folder)
    options = ["--root", str(folder), "--profile", "quick"]
    subprocess.run([sys.executable, "-m", "tools.run_notebook", *options], cwd=ROOT, check=True)
    return folder / "build" / "quick" / "figures"


def leaves(value):
    """How many single values results hold, CLOCK aside."""
    if isinstance(value, dict):
        return sum(leaves(part) for key, part in value.items() if not CLOCK.fullmatch(key))
    return sum(map(leaves, value)) if isinstance(value, list) else 1


def figures_of(folder):
    """`{name: digest}` of a run's figures."""
    return {path.name: digest([path]) for path in folder.glob("*.p*")}


def main():
    """Run, run again, compare; the exit status is 1 if anything differs."""
    work = ROOT / "build" / "reproduce"
    first, second = (quick_run(work / name) for name in ("first", "second"))
    one, other = (read_json(folder / "results.json") for folder in (first, second))
    found = differences(one, other)
    for place, (left, right) in found.items():
        print(f"{place}: {left} and {right}")
    one_figures, other_figures = figures_of(first), figures_of(second)
    names = sorted(one_figures | other_figures)
    changed = [name for name in names if one_figures.get(name) != other_figures.get(name)]
    print(f"{len(found)} of {leaves(one)} values differ;", end=" ")
    print(f"{len(changed)} of {len(names)} figures differ {changed or ''}")
    return 1 if found or changed else 0


if __name__ == "__main__":
    sys.exit(main())
