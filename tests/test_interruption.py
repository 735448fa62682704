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
chain = {"first": (first, None, 0), "backdoor": (replace(first, flip_rate=0.0), "first", 2)}
ledger, seeds = [], [seed_for(0, k) for k in range(3)]
values = [
    run_tasks(section, tasks, ledger)
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
    """A run in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, NOTEBOOK, root],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


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


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The folder of two runs at the same time, what they found, and the seconds that they took."""
    root, began = folder(tmp_path_factory.mktemp("both")), time.monotonic()
    found = [finish(process) for process in [start(root), start(root)]]
    yield root, found, time.monotonic() - began
    shutil.rmtree(root)


@pytest.mark.slow
def test_two_runs_at_once_agree(both):
    """In the same folder, and nothing half written is left."""
    root, (first, second), _ = both
    assert first == second
    assert [path for path in root.rglob(".*") if path.is_file()] == []


def workers_of(process):
    """The processes below a run that compute."""
    below = psutil.Process(process.pid).children(recursive=True)
    return [child for child in below if "popen_loky" in " ".join(child.cmdline())]


@pytest.mark.slow
def test_killed_runs_end_like_undisturbed_ones(both, tmp_path):
    """Whatever was finished when a run was killed is used as it is, nothing half written is, and
    the results are the same. Killed alone, as every other run is, it leaves no process behind that
    computes, or waits, for nobody."""
    undisturbed, (expected, _), seconds = both
    root, chance, done = folder(tmp_path), random.Random(0), {}
    for number in range(KILLS):
        with start(root) as process:
            if number % 2 == 0:
                assert any(line.startswith("[2/3]") for line in process.stdout), (
                    process.stderr.read()
                )
                workers = workers_of(process)
                process.kill()
                process.wait()
                _, alive = psutil.wait_procs(workers, timeout=20)
                for child in alive:
                    child.kill()
                assert workers and alive == []
            else:
                process.stdout.readline()  # the notebook is read
                time.sleep(chance.uniform(0, 0.4 * seconds))
                os.killpg(process.pid, signal.SIGKILL)
        now = kept(root)
        complete = {p: t for p, t in done.items() if p.suffix == ".json" or "ColoredM" in str(p)}
        assert complete.items() <= now.items(), "a finished unit was made again"
        done = now
    assert finish(start(root)) == expected
    assert {path.name for path in kept(root)} == {path.name for path in kept(undisturbed)}


def test_a_folder_that_cannot_be_written_is_named(nb, tmp_path, monkeypatch):
    """A file in its place, a full disk, a read-only one: what is wrong, and what to do."""
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(RuntimeError, match="file/"):
        nb.prepare_folders(tmp_path / "file")
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(RuntimeError, match=r"data/.*\d+ MB.*\d+ MB.*free"):
        nb.prepare_folders(tmp_path / "data", room=2 * free)

    def refuse(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(nb.tempfile, "TemporaryFile", refuse)
    with pytest.raises(RuntimeError, match=r"data/.*Read-only file system.*writable"):
        nb.prepare_folders(tmp_path / "data")
