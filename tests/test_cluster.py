"""`CLUSTER`: the notebook's tasks on a real Dask scheduler's workers, one of which is killed."""

import json
import os
import subprocess
import sys
import threading
from subprocess import PIPE

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


WORKERS = 1  # here: this process
recipe = Recipe(method="strata", images=1_000, examples=2_000)
for root, CLUSTER in (("here", ""), ("there", sys.argv[2]), ("bereft", sys.argv[2])):
    shared = {{"stages": {{"small": [recipe, None, 0]}}, "root": root}}
    tasks = {{
        f"{{root}} {{k}}": (
            trained, shared | {{"seeds": {{k: seed_for(0, k)}}}}
        )
        for k in range({TASKS})
    }}
    print(json.dumps(list(run_tasks("cluster", tasks, []).values())), flush=True)
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


def test_a_cluster_gives_the_same_networks_even_if_a_worker_dies(shared_root, cluster, tmp_path):
    """Trained here, trained by two workers, and by two of which one is killed in the middle."""
    roots, found = ("here", "there", "bereft"), []
    for root in roots:
        (tmp_path / root).mkdir()
        (tmp_path / root / "ColoredMNIST").symlink_to(shared_root / "ColoredMNIST")
    address, workers = cluster
    with (
        (tmp_path / "errors").open("w") as errors,
        start("-c", SCRIPT, NOTEBOOK, address, stdout=PIPE, stderr=errors, cwd=tmp_path) as process,
    ):
        alarm = threading.Timer(300, process.kill)
        alarm.start()
        for line in process.stdout:
            if line.startswith(f"[1/{TASKS}] bereft"):
                workers[0].kill()
            if line.startswith("[{"):
                found.append(json.loads(line))
        alarm.cancel()
        assert process.wait() == 0, (tmp_path / "errors").read_text()
    own, both, left = ({record.pop("process") for record in records} for records in found)
    assert len(found[0]) == TASKS and len(found[0][0]["files"]) == 1
    assert found[0] == found[1] == found[2]
    for root in roots:
        names = [path.name for path in (tmp_path / root / "checkpoints").iterdir()]
        assert len(names) == TASKS and not [name for name in names if name.startswith(".")]
    assert both == {worker.pid for worker in workers} and not both & own
    assert workers[0].wait() < 0 and workers[1].poll() is None
    assert workers[1].pid in left <= both


def test_a_scheduler_that_does_not_answer_is_named(nb):
    """With what to do."""
    address = f"tcp://127.0.0.1:{free_port()}"
    refused = pytest.raises(RuntimeError, match=rf"CLUSTER = '{address}'.*dask scheduler")
    with dask.config.set({"distributed.comm.timeouts.connect": "2s"}), refused:
        nb.workers(address)
