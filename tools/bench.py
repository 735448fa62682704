"""Time the project's commands in a fresh clone of the last commit, beside their budgets: install,
quick run, tests, memory, size of the checkout, the course's own sample run, and the simulation of
crossbars as a ratio to stock MemTorch and to the plain CNN.

Writes figures/bench.json; the exit status is 1 if anything is over its budget. The full profile is
not run here: `make run FRESH=1` notes there what it took. Do both on one machine, with nothing
beside them, for the ratio to the sample's run compares them. Started by `make bench`.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .files import FIGURES, ROOT, read_json, write_json
from .memory import peak_memory
from .records import FULL_RUN, with_ratio

BUDGETS = {  # on two cores: seconds, a ratio, bytes
    "install_seconds": 300,
    "quick_seconds": 60,
    "test_seconds": 300,
    "full_seconds": 900,
    "ratio_to_sample": 0.9,
    "memory": 5e9,  # of the quick run
    "full_memory": 5e9,
    "checkout": 25e6,
}
SPEED_BUDGETS = {"whole": 1.9, "5% stuck": 2.2}  # times the plain network's fastest layout
PACKAGES = ("torch", "torchvision", "numpy", "memtorch-cpu", "numba")


def clean_environment():
    """Return this environment without what an outer make or .venv put there; pip caches nothing."""
    drop = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "VIRTUAL_ENV", "PROFILE", "FRESH"}
    env = {name: value for name, value in os.environ.items() if name not in drop}
    return env | {"PIP_NO_CACHE_DIR": "1"}


def seconds(command, folder):
    """Return how long a command takes; if it fails, so does the measurement."""
    print(f"$ {' '.join(command)}", flush=True)
    started = time.monotonic()
    subprocess.run(command, cwd=folder, env=clean_environment(), check=True)
    return round(time.monotonic() - started, 1)


def output(*command, folder=ROOT):
    """Return what a command prints; its errors are shown."""
    done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def last_line(*command, folder):
    """Return the JSON in the last line that a module of tools prints."""
    print(f"$ {' '.join(command)}", flush=True)
    return json.loads(output(*command, folder=folder).splitlines()[-1])


def versions(python):
    """Return the versions of Python and of the packages that matter for speed."""
    listed = json.loads(output(python, "-m", "pip", "list", "--format", "json"))
    found = {p["name"]: p["version"] for p in listed if p["name"] in PACKAGES}
    return {
        "python": output(python, "-c", "import platform; print(platform.python_version())")
    } | found


def measure(clone, python):
    """Install and run in a clone, with a Python to install with; return the record."""
    make, own = ["make", f"PYTHON={python}"], str(clone / ".venv" / "bin" / "python")
    tracked = output("git", "ls-files", folder=clone).splitlines()
    install = seconds([*make, "install"], clone)
    quick, memory = peak_memory(lambda: seconds([*make, "run", "PROFILE=quick"], clone))
    sample = last_line(own, "-m", "tools.sample_run", folder=clone)
    return {
        "date": datetime.date.today().isoformat(),
        "commit": output("git", "rev-parse", "HEAD", folder=clone),
        "cpu_count": os.cpu_count(),
        "versions": versions(own),
        "checkout": sum((clone / name).stat().st_size for name in tracked),
        "install_seconds": install,
        "quick_seconds": quick,
        "memory": memory,
        "sample": sample,
        "sample_seconds": round(sample["seconds"], 1),
        "speed": last_line(own, "-m", "tools.speed", folder=clone),
        "test_seconds": seconds([*make, "test"], clone),
    }


def compared(record):
    """(what, measured, budget) of everything that has a budget; what was not measured is None."""
    rows = [(name, record.get(name), budget) for name, budget in BUDGETS.items()]
    for chip, budget in SPEED_BUDGETS.items():
        ratios = record.get("speed", {}).get(chip, {})
        rows.append((f"crossbars, {chip}", ratios.get("times_slower_than_channels_last"), budget))
    return rows


def is_over(measured, budget):
    """Tell whether something was measured and is more than it may be."""
    return measured is not None and measured > budget


def table(record):
    """The comparison, one line each."""

    def shown(value, budget):
        return f"{value / 1e6:,.0f} MB" if budget >= 1e6 else f"{value:,.2f}"

    lines = [f"{'':20} {'measured':>10} {'budget':>10}"]
    for name, measured, budget in compared(record):
        verdict = "not measured" if measured is None else "ok"
        verdict = "OVER BUDGET" if is_over(measured, budget) else verdict
        found = "-" if measured is None else shown(measured, budget)
        lines.append(f"{name:20} {found:>10} {shown(budget, budget):>10}  {verdict}")
    return "\n".join(lines)


def main():
    """Measure, write, show; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="to install the clone with")
    options = parser.parse_args()
    if output("git", "status", "--porcelain"):
        print("Note: the clone holds the last commit, not the changes in this folder.", flush=True)
    with tempfile.TemporaryDirectory(prefix="coloredmnist-bench-") as temporary:
        clone = Path(temporary) / "coloredmnist"
        output("git", "clone", "--quiet", str(ROOT), str(clone))
        record = measure(clone, options.python)
    before = read_json(FIGURES / "bench.json", missing={})  # late: a full run may have ended
    record = with_ratio(record | {key: before.get(key) for key in FULL_RUN})
    write_json(FIGURES / "bench.json", record)
    print(f"\n{table(record)}\nWritten to figures/bench.json.")
    return int(any(is_over(*pair) for _, *pair in compared(record)))


if __name__ == "__main__":
    sys.exit(main())
