"""Time the project's commands in a fresh clone of the last commit, beside their budgets: time,
memory, size of the checkout, what other numbers one thread gives, and the simulation of crossbars
as a ratio to stock MemTorch and to the plain CNN.

Writes figures/bench.json. The full profile is not run here: `make run` notes there what the last
full run took that reused nothing. Python's standard library only.
"""

import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from files import replacing
from memory import peak_memory

ROOT = Path(__file__).resolve().parent.parent
BUDGETS = {"install": 300, "quick": 120, "full": 900}  # seconds, on two cores
FULL = ("full_seconds", "full_memory", "full_code_hash")  # noted by `make run`
SIZES = {"checkout": 25e6, "memory": 6 * 2**30, "full_memory": 6 * 2**30}  # bytes
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


def output(*command):
    """Return what a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def versions(python):
    """Return the versions of Python and of the packages that matter for speed."""
    listed = json.loads(output(python, "-m", "pip", "list", "--format", "json"))
    found = {p["name"]: p["version"] for p in listed if p["name"] in PACKAGES}
    return {
        "python": output(python, "-c", "import platform; print(platform.python_version())")
    } | found


def measure(before):
    """Clone, install, run; return the record. `before`: the last one, which knows the full run."""
    if output("git", "-C", str(ROOT), "status", "--porcelain"):
        print("Note: the clone holds the last commit, not the changes in this folder.", flush=True)
    with tempfile.TemporaryDirectory(prefix="coloredmnist-bench-") as temporary:
        clone = Path(temporary) / "coloredmnist"
        output("git", "clone", "--quiet", str(ROOT), str(clone))
        make = ["make", f"PYTHON={sys.executable}"]
        install = seconds([*make, "install"], clone)
        checkout = sum(
            path.stat().st_size
            for path in map(
                clone.joinpath, output("git", "-C", str(clone), "ls-files").splitlines()
            )
        )
        quick, memory = peak_memory(lambda: seconds([*make, "run", "PROFILE=quick"], clone))
        python = str(clone / ".venv" / "bin" / "python")
        record = clone / "build" / "threads.json"
        arguments = ["--first", "build/quick/figures", "--record", str(record)]
        seconds([python, ".ci/reproduce.py", "--threads", "1", *arguments], clone)
        speed = json.loads(output(python, str(clone / ".ci" / "speed.py")).splitlines()[-1])
        return {
            "date": datetime.date.today().isoformat(),
            "commit": output("git", "-C", str(clone), "rev-parse", "HEAD"),
            "cpu_count": os.cpu_count(),
            "versions": versions(python),
            "install_seconds": install,
            "quick_seconds": quick,
            **{key: before.get(key) for key in FULL},
            "checkout": checkout,
            "memory": memory,
            "one_thread": json.loads(record.read_text(encoding="utf-8")),
            "budgets": BUDGETS | SIZES,
            "speed": speed,
        }


def main():
    """Measure, write, show."""
    path = ROOT / "figures" / "bench.json"
    record = measure(json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {})
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    print(f"\n{'':11} {'seconds':>8} {'budget':>8}")
    for name, budget in BUDGETS.items():
        taken = record[f"{name}_seconds"]
        verdict = "not measured" if taken is None else "ok" if taken <= budget else "OVER BUDGET"
        print(f"{name:11} {'-' if taken is None else f'{taken:.0f}':>8} {budget:>8}  {verdict}")
    for name, budget in SIZES.items():
        size = record[name]
        verdict = "not measured" if size is None else "ok" if size <= budget else "OVER BUDGET"
        print(f"{name:11} {(size or 0) / 1e6:>5.0f} MB {budget / 1e6:>5.0f} MB  {verdict}")
    for chip, row in record["speed"].items():
        print(
            f"fast_crossbars, {chip}: {row['times_faster_than_memtorch']:.0f} times as fast as "
            f"stock MemTorch, {row['times_slower_than_plain_network']:.2f} of the plain CNN"
        )


if __name__ == "__main__":
    main()
