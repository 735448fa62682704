"""`CLUSTER`: the notebook's tasks on a real Dask scheduler's workers, one of which is killed."""

import json
import os
import subprocess
import sys
import tempfile
import threading

import pytest
from conftest import AS_NOTEBOOK, NOTEBOOK, free_port

pytestmark = pytest.mark.slow
TASKS = 4
SCRIPT = (
    AS_NOTEBOOK
    + f"""
def trained(name, **arguments):
    return train_network(name, **arguments)["history"], os.getpid()


CLUSTER, root, prefix = sys.argv[2:]
shared = {{"recipe": Recipe(images=1_000, epochs=2), "made_from": {{}}, "root": root}}
tasks = [
    (trained, {{"name": f"{{prefix}} {{k}}", "seed": seed_for(0, k)}} | shared)
    for k in range({TASKS})
]
print(json.dumps(run_parallel(tasks)))
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


def train_on(address, root, prefix, when_one_is_done=lambda: None):
    """Train the networks on a cluster, or here if `address` is empty; their histories, and the
    processes that trained them."""
    arguments = ("-c", SCRIPT, NOTEBOOK, address, root, prefix)
    with (
        tempfile.TemporaryFile("w+") as errors,
        start(*arguments, stdout=subprocess.PIPE, stderr=errors) as process,
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
    histories, processes = zip(*json.loads(lines[-1]), strict=True)
    return histories, set(processes)


def test_a_cluster_gives_the_same_networks_even_if_a_worker_dies(nb, cluster, empty_root):
    """Trained here, trained by two workers, and by two of which one is killed in the middle."""
    nb.prepare_environments(empty_root)
    address, workers = cluster
    here, own = train_on("", empty_root, "here")
    there, processes = train_on(address, empty_root, "there")
    assert there == here
    assert processes == {worker.pid for worker in workers} and not processes & own
    bereft, processes = train_on(address, empty_root, "bereft", workers[0].kill)
    assert bereft == here
    assert workers[0].wait() < 0 and workers[1].poll() is None
    assert workers[1].pid in processes <= {worker.pid for worker in workers}
    names = sorted(path.name for path in (empty_root / "checkpoints").iterdir())
    assert len(names) == 3 * TASKS * 2 and not [name for name in names if name.startswith(".")]


def test_a_scheduler_that_does_not_answer_is_named(nb):
    """With what to do."""
    address = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(RuntimeError, match=rf"CLUSTER = '{address}'.*dask scheduler"):
        with nb.workers(address):
            pass
