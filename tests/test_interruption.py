"""Runs that are killed at random moments and started again; folders that cannot be written; two
runs at once. `KILLS=20 pytest tests/test_interruption.py` for more kills than CI has time for."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
from conftest import AS_NOTEBOOK, NOTEBOOK, link_mnist

KILLS = int(os.environ.get("KILLS", 2))
# The notebook's own way, in small: environments, networks that teach each other, their test.
SCRIPT = (
    AS_NOTEBOOK
    + """
os.chdir(sys.argv[2])
print("ready", flush=True)
prepare_folders("data")
prepare_environments()
first = Recipe(method="strata", images=400, examples=512, flip_rate=LABEL_NOISE)
chain = {"first": (first, None, ""), "backdoor": (replace(first, flip_rate=0.0), "first", "again")}
ledger, seeds = [], [seed_for(0, k) for k in range(3)]
values = [
    run_tasks(section, tasks, globals(), ledger)
    for section, tasks in (
        ("train", training_tasks({"chain": chain}, seeds)),
        ("test", testing_tasks({"first": "CNN", "backdoor": "CNN"}, 3, 500)),
    )
]
work = [[row[key] for key in ("section", "images_trained")] for row in ledger]
print(json.dumps([values, work]))
"""
)


def start(root):
    """A run in a session of its own, after it has read the notebook."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, NOTEBOOK, root],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


def finish(process):
    """What a run found: the last line that it prints."""
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "damaged" not in output + errors
    return json.loads(output.splitlines()[-1])


def kept(root):
    """When each finished unit was written."""
    folders = (root / "data" / name for name in ("ColoredMNIST", "checkpoints", "results"))
    files = (path for folder in folders if folder.exists() for path in folder.iterdir())
    return {path: path.stat().st_mtime_ns for path in files if not path.name.startswith(".")}


def folder(root):
    """A folder to work in, with MNIST below `data`."""
    return link_mnist(root / "data").parent


@pytest.mark.slow
def test_killed_runs_end_like_undisturbed_ones(tmp_path):
    """Whatever was finished when a run was killed is used as it is, nothing half written is, and
    the results are the same."""
    root = folder(tmp_path / "undisturbed")
    began = time.monotonic()
    expected = finish(start(root))
    seconds, units = time.monotonic() - began, set(path.name for path in kept(root))
    chance, killed = random.Random(0), 0
    while killed < KILLS:
        root = folder(tmp_path / f"killed {killed}")
        done = {}
        while True:
            process = start(root)
            try:
                process.wait(timeout=chance.uniform(0, 0.6 * seconds))
                found = finish(process)
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                killed += 1
            now = kept(root)
            complete = {
                p: t for p, t in done.items() if p.suffix == ".json" or "ColoredM" in str(p)
            }
            assert complete.items() <= now.items(), "a finished unit was made again"
            done = now
            if killed == KILLS:
                found = finish(start(root))
                break
        assert found == expected
        assert set(path.name for path in kept(root)) == units
        shutil.rmtree(root)


@pytest.mark.slow
def test_two_runs_at_once_agree(tmp_path):
    """In the same folder, at the same time."""
    root = folder(tmp_path / "both")
    both = [start(root), start(root)]
    first, second = map(finish, both)
    assert first == second
    assert [path for path in root.rglob(".*") if path.is_file()] == []  # half written
    assert finish(start(root)) == first


@pytest.mark.slow
def test_workers_die_with_their_run(tmp_path):
    """Killed alone, a run leaves no process behind that computes, or waits, for nobody."""
    with start(folder(tmp_path)) as process:
        assert any(line.startswith("[2/3]") for line in process.stdout), process.stderr.read()
        workers = [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if "popen_loky" in " ".join(child.cmdline())
        ]
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(workers, timeout=20)
        for child in alive:
            child.kill()
    assert workers and alive == []


def test_a_folder_that_cannot_be_written_is_named(nb, tmp_path, monkeypatch):
    """As on a read-only disk: what is wrong, and what to do."""

    def refuse(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(nb.tempfile, "TemporaryFile", refuse)
    with pytest.raises(RuntimeError, match=r"data/.*Read-only file system.*writable"):
        nb.prepare_folders(tmp_path / "data")


def test_a_file_in_the_folders_place_is_named(nb, tmp_path):
    """`data` is a file."""
    (tmp_path / "data").write_text("no folder")
    with pytest.raises(RuntimeError, match="data/"):
        nb.prepare_folders(tmp_path / "data")


def test_a_full_disk_is_named(nb, tmp_path):
    """More room asked for than there is."""
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(RuntimeError, match=r"data/.*\d+ MB.*\d+ MB.*free"):
        nb.prepare_folders(tmp_path / "data", room=2 * free)
