"""`CLUSTER`: the notebook's tasks on a real Dask scheduler's workers, one of which is killed."""

import json
import os
import subprocess
import sys
import tempfile
import threading

import dask
import pytest
from conftest import AS_NOTEBOOK, NOTEBOOK, free_port

pytestmark = pytest.mark.slow
TASKS = 4
SCRIPT = (
    AS_NOTEBOOK
    + f"""
def trained(**arguments):
    return train_networks(**arguments) | {{"process": os.getpid()}}


CLUSTER, root = sys.argv[2:]
recipe = asdict(Recipe(method="strata", images=1_000, examples=2_000))
shared = {{"stages": {{"small": [recipe, None, False]}}, "root": root}}
tasks = {{
    f"{{root}} {{k}}": (
        trained, shared | {{"name": "small", "numbers": [k], "seeds": [seed_for(0, k)]}}
    )
    for k in range({TASKS})
}}
print(json.dumps(list(run_tasks("cluster", tasks, globals(), []).values())))
"""
)


def start(*arguments, **options):
    """A process of this Python, of one thread in every library."""
    one = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)], env=os.environ | one, text=True, **options
    )


@pytest.fixture
def cluster(tmp_path):
    """A scheduler's address and its two workers, processes of their own."""
    address, log = f"tcp://127.0.0.1:{free_port()}", (tmp_path / "dask.log").open("w")
    quiet = {"stdout": log, "stderr": log, "cwd": tmp_path}
    port = address.rpartition(":")[2]
    dask = ("-m", "dask")
    scheduler = start(
        *dask, "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard", **quiet
    )
    single = ("--nthreads", 1, "--no-nanny", "--no-dashboard")
    workers = [start(*dask, "worker", address, *single, **quiet) for _ in range(2)]
    yield address, workers
    for process in (*workers, scheduler):
        process.kill()
        process.wait()
    log.close()


def train_on(address, folder, root, when_one_is_done=lambda: None):
    """Train the networks in a folder's data folder `root`, on a cluster, or here if `address` is
    empty; their records, and the processes that trained them."""
    with (
        tempfile.TemporaryFile("w+") as errors,
        start(
            *("-c", SCRIPT, NOTEBOOK, address, root),
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
        ) as process,
    ):
        alarm = threading.Timer(300, process.kill)
        alarm.start()
        first = process.stdout.readline()
        if first.startswith(f"[1/{TASKS}] "):
            when_one_is_done()
        # Not communicate(): it would lose lines that were buffered with the first.
        lines = [first, *process.stdout]
        alarm.cancel()
        assert process.wait() == 0, (errors.seek(0), errors.read())
    assert [line.partition(" ")[0] for line in lines[:-1]] == [
        f"[{k + 1}/{TASKS}]" for k in range(TASKS)
    ]
    records = json.loads(lines[-1])
    processes = {record.pop("process") for record in records}
    names = [path.name for path in (folder / root / "checkpoints").iterdir()]
    assert len(names) == TASKS and not [name for name in names if name.startswith(".")]
    return records, processes


def test_a_cluster_gives_the_same_networks_even_if_a_worker_dies(shared_root, cluster, tmp_path):
    """Trained here, trained by two workers, and by two of which one is killed in the middle."""
    for root in ("here", "there", "bereft"):
        (tmp_path / root).mkdir()
        (tmp_path / root / "ColoredMNIST").symlink_to(shared_root / "ColoredMNIST")
    address, workers = cluster
    here, own = train_on("", tmp_path, "here")
    there, processes = train_on(address, tmp_path, "there")
    assert there == here and len(here[0]["files"]) == 1
    assert processes == {worker.pid for worker in workers} and not processes & own
    bereft, processes = train_on(address, tmp_path, "bereft", workers[0].kill)
    assert bereft == here
    assert workers[0].wait() < 0 and workers[1].poll() is None
    assert workers[1].pid in processes <= {worker.pid for worker in workers}


def test_a_scheduler_that_does_not_answer_is_named(nb):
    """With what to do."""
    address = f"tcp://127.0.0.1:{free_port()}"
    refused = pytest.raises(RuntimeError, match=rf"CLUSTER = '{address}'.*dask scheduler")
    with dask.config.set({"distributed.comm.timeouts.connect": "2s"}), refused:
        nb.workers(address)
