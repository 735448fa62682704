"""Any machine: packages that are there stay as they are, no compiler, other folders, little memory,
no shared memory; and a person at the keyboard of a real kernel."""

import io
import itertools
import json
import os
import queue
import subprocess
import sys
import tarfile
import time
from types import SimpleNamespace

import joblib
import memtorch_bindings
import psutil
import pytest
import torch
from conftest import AS_NOTEBOOK, NOTEBOOK, ROOT, link_mnist
from jupyter_client.manager import KernelManager

from tools import install

# Packages and MemTorch


@pytest.fixture
def installed(nb, monkeypatch):
    """Everything but lmfit is installed, numpy in a version of its own; the calls of pip."""
    there = [SimpleNamespace(name=n, version="1.2+x") for n in nb.PACKAGES if n != "lmfit"]
    calls = []
    monkeypatch.setattr(nb.importlib.metadata, "distributions", lambda: there)
    monkeypatch.setattr(nb, "pip", lambda *arguments: calls.append(arguments))
    return there, calls


def test_only_what_is_missing_is_installed(nb, installed, capsys):
    """And pip is held to the versions of all that is there."""
    there, calls = installed
    nb.install_missing()
    (call,) = calls
    assert call[:2] == ("install", "lmfit")
    assert set(call[2:]) == {f"{name}==1.2+x" for name in nb.PACKAGES if name != "lmfit"}
    assert capsys.readouterr().out == "Installing lmfit.\n"
    there.append(SimpleNamespace(name="LMFit", version="1"))
    nb.install_missing()
    assert len(calls) == 1


def test_pip_says_why_it_failed(nb):
    """Its own last words."""
    with pytest.raises(RuntimeError, match=r"(?s)pip no-such-command failed.*unknown command"):
        nb.pip("no-such-command")


def source_archive(folder):
    """MemTorch's source in small, as pip would download it."""
    with tarfile.open(folder / "memtorch-cpu-1.1.6.tar.gz", "w:gz") as archive:
        for name in ("setup.py", "memtorch/__init__.py", "memtorch/cpp/x.cpp"):
            text = b"setup(name=name, ext_modules=ext_modules)" if name == "setup.py" else b""
            file = tarfile.TarInfo(f"memtorch-cpu-1.1.6/{name}")
            file.size = len(text)
            archive.addfile(file, io.BytesIO(text))


def test_where_nothing_compiles_a_stand_in_is_installed(nb, monkeypatch):
    """From MemTorch's source archive; where building is not wanted, it is not tried."""
    calls = []

    def pip(command, *arguments):
        calls.append(arguments)
        if nb.MEMTORCH in arguments and command == "install":
            raise RuntimeError("no compiler")
        if command == "download":
            source_archive(nb.Path(arguments[arguments.index("--dest") + 1]))
        else:
            texts = {p.name: p.read_text() for p in arguments[-1].rglob("*.py")}
            calls.append(texts)

    monkeypatch.setattr(nb, "pip", pip)
    monkeypatch.setattr(nb, "memtorch_loads", lambda: False)
    for compiled in (True, False):
        calls.clear()
        nb.install_memtorch(compiled)
        assert len(calls) == 3 + compiled
        texts = calls[-1]
        assert texts["setup.py"] == 'setup(name=name, py_modules=["memtorch_bindings"])'
        assert texts["memtorch_bindings.py"] == nb.stand_in()


def test_the_stand_in_cuts_tiles_as_memtorch_does(nb):
    """Bit by bit: whole tiles, padded ones, larger than the matrix."""
    random = torch.Generator().manual_seed(0)
    shapes, tiles = ((1, 1), (4, 6), (5, 7), (128, 130), (300, 2)), ((2, 3), (128, 128), (5, 1))
    for shape, tile, is_input in itertools.product(shapes, tiles, (False, True)):
        asked = torch.rand(shape, generator=random), tile, is_input
        pairs = zip(nb.gen_tiles(*asked), memtorch_bindings.gen_tiles(*asked), strict=True)
        for found, expected in pairs:
            assert torch.equal(found, expected) and found.dtype == expected.dtype


CONVERT = """
layers = nn.Conv2d(3, 4, 5), nn.MaxPool2d(8), nn.Flatten(), nn.Linear(4 * 9, 2)
network = nn.Sequential(*layers)
torch.manual_seed(0)
for values in network.parameters():
    nn.init.normal_(values, 0, 0.1)
images = torch.rand(6, 3, 28, 28)
configs = [MemristorConfig(tile_shape=(32, 16), restore_scale=r) for r in (True, False)]
chips = [to_memristive(network, config) for config in configs]
chips.append(apply_device_faults(chips[0], 0.1, 0.1, 3))
answers = []
for chip in chips:
    with torch.no_grad(), fast_crossbars(chip):
        answers.append(chip(images).tolist())
try:
    chips[0](images)
    refused = None
except NotImplementedError as error:
    refused = str(error)
import memtorch_bindings
speed = compare_speed(network, chips[0], images.repeat(2, 1, 1, 1)) if not COMPILED else {}
print(json.dumps([COMPILED, refused, answers, str(speed.get("images_that_differ"))]))
"""


@pytest.mark.slow
def test_without_the_compiled_part_all_other_numbers_are_the_same(nb, tmp_path, capsys):
    """Conversion, tuning, faults and `fast_crossbars` to the last bit; MemTorch's own forward is
    refused with what to do, and not compared."""
    (tmp_path / "memtorch_bindings.py").write_text(nb.stand_in())
    done = subprocess.run(
        [sys.executable, "-c", AS_NOTEBOOK + CONVERT, NOTEBOOK],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},  # comes first
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    exec(CONVERT, dict(vars(nb)))
    said = (capsys.readouterr().out, done.stdout)
    found = [json.loads(text.splitlines()[-1]) for text in said]
    (compiled, refused, expected, _), (hidden, reason, answers, differ) = found
    assert compiled and refused is None and not hidden
    assert "fast_crossbars" in reason and "compiler" in reason and differ == "nan"
    assert answers == expected


def test_versions_that_were_not_tried_are_named(nb, monkeypatch):
    """Too old or too new; numbers are compared as such, builds for some device are not."""
    for found, said in (
        ({"torch": "2.14.1+cpu", "numpy": "2.2.6"}, []),
        ({"torch": "2.9.0", "numpy": "3.0.0rc1"}, ["torch 2.9.0", "numpy 3.0.0rc1"]),
    ):
        monkeypatch.setattr(nb, "version", lambda name, found=found: found.get(name, "3.11"))
        assert [" ".join(sentence.split()[:2]) for sentence in nb.not_tried()] == said


def test_the_stand_in_is_installed_by_cells_that_need_no_package():
    """Nothing that is not there yet: `make run NO_COMPILER=1` executes them."""
    code = f"import sys\nsys.path[0] = {str(ROOT)!r}\n{install.STAND_IN.rpartition('names[')[0]}"
    code += """
import builtins, dis
assert "torch" not in sys.modules and names["stand_in"]()
steps = dis.get_instructions(names["install_memtorch"])
used = {step.argval for step in steps if step.opname == "LOAD_GLOBAL"}
assert "pip" in used and used <= names.keys() | vars(builtins).keys(), used
"""
    subprocess.run([sys._base_executable, "-c", code], check=True)


# Folders, memory, processes


def test_a_kernel_started_above_goes_to_the_notebook(nb, tmp_path, monkeypatch, capsys):
    """And says so; where there is no notebook, the folder is named."""
    home = tmp_path / "a folder" / "项目"
    home.mkdir(parents=True)
    monkeypatch.chdir(home)
    nb.enter_project()
    assert "Working in 项目/" in capsys.readouterr().out
    (home / "coloredmnist.ipynb").touch()
    nb.enter_project()
    assert capsys.readouterr().out == ""
    for place in (home.parent, tmp_path):
        monkeypatch.chdir(place)
        nb.enter_project()
        assert os.getcwd() == str(home) and "Working in 项目/" in capsys.readouterr().out


def test_workers_follow_cores_memory_and_the_container(nb, monkeypatch, tmp_path):
    """Never more than there is memory for, never fewer than one."""
    gigabyte, limits = 10**9, {}
    monkeypatch.setattr(joblib, "cpu_count", lambda: 32)
    memory = SimpleNamespace(available=64 * gigabyte)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)

    def read_text(path, **_):
        if str(path) not in limits:
            raise FileNotFoundError(path)
        return limits[str(path)]

    monkeypatch.setattr(nb.Path, "read_text", read_text)
    assert nb.fitting_workers() == 32
    memory.available = 8 * gigabyte
    assert nb.fitting_workers() == 5
    limits |= {"/sys/fs/cgroup/memory.max": "max\n", "/sys/fs/cgroup/memory.current": "0\n"}
    assert nb.fitting_workers() == 5
    limits["/sys/fs/cgroup/memory.max"] = f"{4 * gigabyte}\n"
    assert nb.fitting_workers() == 2
    limits["/sys/fs/cgroup/memory.current"] = f"{4 * gigabyte}\n"
    assert nb.fitting_workers() == 1


def test_the_number_of_workers_can_be_set(nb, monkeypatch):
    """By one parameter."""
    monkeypatch.setattr(nb, "WORKERS", 7)
    with nb.workers():
        assert joblib.effective_n_jobs(None) == 7


def test_without_shared_memory_tasks_run_one_by_one(nb, monkeypatch):
    """In this process, as where /dev/shm is read-only."""
    monkeypatch.delitem(joblib.parallel.BACKENDS, "loky")  # joblib's own finding
    with nb.workers():
        found = joblib.Parallel(return_as="generator_unordered")([joblib.delayed(os.getpid)()])
        assert list(found) == [os.getpid()]


# A person at the keyboard

COMPUTE = """
def slow(number, root="data"):
    time.sleep(number / 2)
    return {"y": number}

values = run_tasks("s", {f"t {k}": (slow, {"number": k}) for k in (0, 1, 2, 3)}, ledger)
sorted(value["y"] for value in values.values())
"""


class Kernel:
    """A notebook's kernel: what its cells show."""

    def __init__(self, folder, environment):
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=folder, env=os.environ | environment)
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, source, when_printed=("", None), seconds=100):
        """The outputs of a cell as (type, content); once it prints a text, do something."""
        self.client.execute(source)
        outputs, deadline, (text, act) = [], time.monotonic() + seconds, when_printed
        while time.monotonic() < deadline:
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                return outputs
            outputs.append((kind, content))
            if act and text in content.get("text", ""):
                act()
                act = None
        raise AssertionError(f"no end after {seconds} s: {outputs}")

    def said(self, source):
        """What a cell prints."""
        outputs = self.run(source)
        assert not [content for kind, content in outputs if kind == "error"], outputs
        return "".join(content["text"] for kind, content in outputs if kind == "stream")

    def workers(self):
        """The processes below the kernel that compute."""
        below = psutil.Process(self.manager.provisioner.pid).children(recursive=True)
        return [child for child in below if "popen_loky" in " ".join(child.cmdline())]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory, shared_root):
    """One that was started above the notebook's folder, among odd settings; with the notebook's
    set-up, then definitions up to tasks, each below `%%time`."""
    above = tmp_path_factory.mktemp("one above 上")
    home = above / "project"
    (link_mnist(home / "data") / "ColoredMNIST").symlink_to(shared_root / "ColoredMNIST")
    (home / "coloredmnist.ipynb").write_bytes(NOTEBOOK.read_bytes())
    (above / "matplotlibrc").write_text("backend: Agg\nfont.size: 40\naxes.facecolor: red\n")
    odd = {"MPLBACKEND": "Agg", "MATPLOTLIBRC": str(above), "LC_ALL": "C", "TZ": "Asia/Tokyo"}
    kernel = Kernel(above, odd)
    kernel.home = home
    is_set_up = False
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        source, tags = "".join(cell["source"]), cell["metadata"].get("tags")
        if cell["cell_type"] != "code" or (is_set_up and not tags):
            continue
        outputs = kernel.run("%%time\n" + source.replace('"full"', '"quick"', 1))
        assert not [content for kind, content in outputs if kind == "error"]
        is_set_up |= "profile = " in source and not tags
        if "def run_tasks(" in source:
            break
    kernel.said("enter_project(); prepare_folders('data', 'figures')")
    yield kernel
    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel(now=True)


@pytest.mark.slow
def test_surroundings_change_no_figure(kernel, nb):
    """Neither MPLBACKEND nor a matplotlibrc: a picture is shown, in the notebook's style."""
    outputs = kernel.run(
        "figure, _ = canvas(1.0); plt.plot([1, 2]); figure.patch.get_facecolor()[:3]"
    )
    shown = {mime for _, content in outputs for mime in content.get("data", {})}
    assert "image/png" in shown
    found = kernel.said("print(json.dumps(dict(plt.rcParams), default=str))")
    with nb.plt.rc_context():
        nb.plt.rcdefaults()
        nb.canvas(1.0)
        expected = json.loads(json.dumps(dict(nb.plt.rcParams), default=str))
    differ = {name for name, value in json.loads(found).items() if value != expected[name]}
    assert differ <= {"backend", "interactive"}
    assert expected["axes.facecolor"] == "white" and expected["axes.titlelocation"] == "left"


@pytest.mark.slow
def test_data_and_tasks_need_no_memtorch(kernel):
    """The first digits are seen before it is built."""
    assert kernel.said("print({'torch', 'memtorch', 'memtorch_bindings'} & {*sys.modules})") == (
        "{'torch'}\n"
    )


LOADER = """
total = lambda image: int(np.asarray(image).sum())
data = ColoredMNIST(env="train1", transform=total)
loader = torch.utils.data.DataLoader(
    data, batch_size=8, num_workers=1, multiprocessing_context="spawn"
)
print(json.dumps([next(iter(loader))[0].tolist(), [int(data[i][0]) for i in range(8)]]))
"""


@pytest.mark.slow
def test_a_data_loader_whose_workers_start_anew_finds_the_data_set(kernel):
    """As on macOS and Windows, though it is defined in no module."""
    found, expected = json.loads(kernel.said(LOADER))
    assert found == expected and len(found) == 8


@pytest.mark.slow
def test_an_interrupted_cell_can_be_run_again(kernel):
    """What was finished is kept, no worker is left, and values are whole."""
    interrupt = ("[2/4]", kernel.manager.interrupt_kernel)
    outputs = kernel.run(COMPUTE, interrupt)
    assert [c["ename"] for kind, c in outputs if kind == "error"] == ["KeyboardInterrupt"]
    _, alive = psutil.wait_procs(kernel.workers(), timeout=20)
    assert alive == []
    outputs = kernel.run(COMPUTE)
    assert [c["data"]["text/plain"] for k, c in outputs if k == "execute_result"] == [
        "[0, 1, 2, 3]"
    ]
    assert [c for kind, c in outputs if kind == "error"] == []
    assert (kernel.home / "data" / "results" / "t 3.json").exists()
    assert 2 <= int(kernel.said("print(ledger[-1]['kept'])")) < 4
