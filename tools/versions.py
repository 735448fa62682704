"""Run the quick profile under every Python that is found, and print a table. Started by `make
versions`.

Each Python gets a copy of the project below build/versions/, with a .venv of its own: about 6 GB
and five minutes. Python's standard library only.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from .files import ROOT, copy_project, read_json
from .reproduce import differences

OLDEST = (3, 11)
ASK = "import sys; print('%d.%d' % sys.version_info[:2])"
SHOWN = ("torch", "numpy", "matplotlib")


def pythons(path=None, home=None):
    """`{"3.12": program}`: the first Python of each version on PATH, then those of pyenv."""
    folders = [Path(f) for f in (path or os.environ["PATH"]).split(os.pathsep)]
    folders += sorted((home or Path.home()).glob(".pyenv/versions/*/bin"))
    found = {}
    for program in (p for folder in folders for p in sorted(folder.glob("python3*"))):
        if re.fullmatch(r"python3(\.\d+)?", program.name) and os.access(program, os.X_OK):
            done = subprocess.run([program, "-c", ASK], capture_output=True, text=True)
            version = done.stdout.strip()
            if not done.returncode and tuple(map(int, version.split("."))) >= OLDEST:
                found.setdefault(version, program)
    return dict(sorted(found.items(), key=lambda item: int(item[0].split(".")[1])))


def quick_run(version, program):
    """Install and run the quick profile in a copy: seconds of both, and its results or None."""
    folder, seconds = ROOT / "build" / "versions" / version, []
    copy_project(ROOT, folder)
    shutil.copytree(ROOT / "tools", folder / "tools", dirs_exist_ok=True)
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt"):
        shutil.copy(ROOT / name, folder)
    for target in (["install"], ["run", "PROFILE=quick"]):
        started = time.monotonic()
        done = subprocess.run(["make", "-C", folder, *target, f"PYTHON={program}"])
        seconds.append(time.monotonic() - started)
        if done.returncode:
            return seconds, None
    return seconds, read_json(folder / "build" / "quick" / "figures" / "results.json")


def table(runs):
    """The lines of a table of `{version: (seconds, results or None)}`; values are compared with
    those of the first Python that finished."""
    lines = [
        "| Python | " + " | ".join(SHOWN) + " | install, s | quick run, s | values that differ |"
    ]
    lines.append("|" + "---|" * (len(SHOWN) + 4))
    finished = [results for _, results in runs.values() if results]
    for version, (seconds, results) in runs.items():
        times = [f"{taken:.0f}" for taken in seconds] + ["-"] * (2 - len(seconds))
        shown = ["-"] * len(SHOWN) + [*times, "failed"]
        if results:
            compared = {k: v for k, v in results.items() if k != "versions"}
            first = {k: v for k, v in finished[0].items() if k != "versions"}
            shown = [results["versions"][name] for name in SHOWN]
            shown += [*times, str(len(differences(first, compared)))]
        lines.append("| " + " | ".join([version, *shown]) + " |")
    return lines


def main():
    """Run all, show the table; the exit status is 1 if one failed."""
    runs = {version: quick_run(version, program) for version, program in pythons().items()}
    print("\n".join(table(runs)))
    return int(not runs or not all(results for _, results in runs.values()))


if __name__ == "__main__":
    sys.exit(main())
