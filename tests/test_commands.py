"""The commands do what `make help` says, and leave things whole when something goes wrong."""

import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from PIL import Image

from tools import install, run_notebook, versions
from tools.files import ROOT, replacing
from tools.pictures import slim_png

MAKEFILE = (ROOT / "Makefile").read_text()

# Without what an outer `make test` passes on to every make below it.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "PROFILE", "FRESH", "CXX"}
}


def call(*command, **environment):
    """Run a command to its end."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env=ENVIRONMENT | {name: str(value) for name, value in environment.items()},
        capture_output=True,
        text=True,
        timeout=120,
    )


# make


def test_help_is_the_default_and_lists_every_target():
    """Nobody has to read the Makefile."""
    shown = call("make", "-C", ROOT, "--no-print-directory")
    assert shown.returncode == 0
    listed = set(re.findall(r"^make ([a-z]+) +\S", shown.stdout, re.MULTILINE))
    targets = set(re.findall(r"^([a-z]+):(?!=)", MAKEFILE, re.MULTILINE))
    assert targets == {
        *"help install run check test lint lab readme report slides demo html pdf".split(),
        *"reproduce versions bench clean".split(),
    }
    assert targets <= listed
    phony = re.search(r"^\.PHONY:(.*)$", MAKEFILE, re.MULTILINE)[1]
    assert set(phony.split()) == targets  # data/, tests/ and others could shadow a target


def test_ci_runs_make_test_and_check_is_test_without_the_slow():
    """.ci/run calls exactly `make test`; `make check` leaves out what is marked."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith("\nexec make test")
    said = {name: call("make", "-n", "-C", ROOT, name).stdout for name in ("check", "test")}
    assert said["check"].replace(' -m "not slow"', "") == said["test"] != said["check"]


def test_clean_removes_what_runs_have_made_and_nothing_else(tmp_path):
    """Even where data/MNIST is data/mnist, for file systems that ignore case."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    made = [
        "build/x",
        "data/ColoredMNIST/train1.pt",
        "data/checkpoints/a.pt",
        "data/results/a.json",
    ]
    made += ["data/MNIST/raw/x", "tools/__pycache__/x", ".pytest_cache/x"]
    kept = ["data/mnist/x.gz", "data/README.md", "figures/a.png", ".venv/x", "tests/a.py"]
    kept += ["report/report.pdf", "slides/text.toml"]
    for name in (*made, *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    done = call("make", "-C", tmp_path, "clean")
    assert done.returncode == 0, done.stderr
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {*kept, "Makefile"}
    assert not (tmp_path / "data" / "MNIST").exists()
    assert "data/mnist" not in re.sub("rmdir .*", "", done.stdout).lower().split()


def test_texts_have_the_same_line_ends_everywhere():
    """By .gitattributes: texts LF, products binary."""
    paths = ["Makefile", "coloredmnist.ipynb", ".ci/run", "tools/page.html.j2"]
    paths += ["x.pptx", "x.docx", "x.pdf", "x.png", "x.gz"]
    said = call("git", "-C", ROOT, "check-attr", "eol", "binary", "--", *paths).stdout
    for path in paths:
        expected = "eol: lf" if path[:2] != "x." else "binary: set"
        assert f"{path}: {expected}\n" in said


def test_all_requirements_are_pinned():
    """Every line names one exact version."""
    for name in ("requirements.txt", "requirements-dev.txt"):
        lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
        for line in filter(None, lines):
            assert re.fullmatch(r"[A-Za-z0-9_.-]+==[\w.]+|-r requirements\.txt", line), line


def test_install_starts_where_there_is_no_venv(tmp_path, monkeypatch):
    """On a bare clone it makes .venv first; a Python that is not there is not an error."""
    steps = []

    def run(*command, **kwargs):
        steps.append([str(part) for part in command])
        raise KeyboardInterrupt

    monkeypatch.setattr(install, "PIP", [tmp_path / ".venv" / "bin" / "python", "-m", "pip"])
    monkeypatch.setattr(install, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(install, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(install, "run", run)
    with pytest.raises(KeyboardInterrupt):
        install.install("memtorch-cpu==1.1.6")
    assert steps == [[sys.executable, "-m", "venv", "--clear", str(tmp_path / ".venv")]]


def test_memtorch_is_built_without_its_assertions(monkeypatch):
    """They do not compile; CFLAGS replaces Python's own flags, so -DNDEBUG must stand in it."""
    monkeypatch.delenv("CFLAGS", raising=False)
    monkeypatch.setenv("CXXFLAGS", "-O2")
    environment = install.build_environment()
    assert set(environment["CFLAGS"].split()) == {"-DNDEBUG", "-g0"}
    assert set(environment["CXXFLAGS"].split()) == {"-DNDEBUG", "-g0", "-O2"}


def test_install_is_done_again_when_requirements_change(tmp_path, monkeypatch):
    """The stamp counts only for the requirements, the MemTorch and the way that it was made for."""
    for name in ("requirements.txt", "requirements-dev.txt"):
        (tmp_path / name).write_text("one==1\n")
    monkeypatch.setattr(install, "ROOT", tmp_path)
    monkeypatch.setattr(install, "STAMP", tmp_path / "stamp")
    assert not install.is_installed("memtorch-cpu==1.1.6")
    install.STAMP.write_text(install.wanted("memtorch-cpu==1.1.6") + "\n")
    assert install.is_installed("memtorch-cpu==1.1.6")
    assert not install.is_installed("memtorch-cpu==1.1.7")
    assert not install.is_installed("memtorch-cpu==1.1.6", False)
    install.STAMP.write_text(install.wanted("memtorch-cpu==1.1.6", False))
    assert install.is_installed("memtorch-cpu==1.1.6", False)
    assert not install.is_installed("memtorch-cpu==1.1.6")
    install.STAMP.write_text(install.wanted("memtorch-cpu==1.1.6"))
    (tmp_path / "requirements-dev.txt").write_text("one==2\n")
    assert not install.is_installed("memtorch-cpu==1.1.6")


def test_two_processes_replace_a_file(tmp_path, monkeypatch):
    """At the same time: each writes all of it under a name of its own, and the last one stays."""
    path = tmp_path / "made" / "x.txt"
    with replacing(path) as one:
        one.write_text("one")
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with replacing(path) as other:
            other.write_text("other")
        assert path.read_text() == "other"
    assert path.read_text() == "one" and one.suffix == ".txt"
    assert list(path.parent.iterdir()) == [path]


# What the machine lacks


@pytest.fixture
def fake(tmp_path):
    """Returns a function that writes a small shell script and returns its path."""

    def write(name, script):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return write


@pytest.fixture
def good(fake, tmp_path):
    """Variables with which the preflight finds nothing missing, on any machine."""
    df = 'echo "Filesystem 1024-blocks Used Available Capacity Mounted"; echo "x 9 9 99000000 9% /"'
    fake("df", df)
    return {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHON": fake("good-python", 'case "$*" in *version_info*) echo 3.12 ;; esac'),
        "CXX": fake("good-compiler", "exit 0"),
    }


def preflight(**environment):
    """Run the preflight; return (exit status, lines)."""
    done = call("/bin/sh", ROOT / "tools" / "preflight.sh", **environment)
    return done.returncode, (done.stdout + done.stderr).splitlines()


GOOD_PYTHON = 'case "$*" in *version_info*) echo 3.13 ;; {}) exit 1 ;; esac'
LACKING = [  # variable, the script that stands in for it, what is said
    ("PYTHON", "echo 3.9", r"Python 3\.11 or later \(.* is 3\.9\)"),
    ("PYTHON", "echo 3.10", r"Python 3\.11 or later \(.* is 3\.10\).*PYTHON="),
    ("PYTHON", "echo 2.7", r"Python 3\.11 or later \(.* is 2\.7\)"),
    ("PYTHON", "exit 127", r"Python \(.* does not run\).*apt install python3"),
    ("PYTHON", GOOD_PYTHON.format("*venv*"), r"venv.*apt install python3-venv"),
    ("PYTHON", GOOD_PYTHON.format("*Python.h*"), r"Python\.h.*apt install.*dnf install"),
    ("CXX", "exit 1", r"C\+\+ compiler.*apt install g\+\+"),
    ("df", "echo head; echo 'x 9 9 4000000 9% /'", r"disk space \(9 GB .* \d GB are free\)"),
]


def test_preflight_says_in_one_line_what_is_missing(good, fake):
    """Each missing thing is one line, with what to do; a good machine reads nothing."""
    assert preflight(**good) == (0, [])
    # .venv counts as space that is there already, so this project's own must not help.
    fake("du", "echo 0")
    for variable, script, expected in LACKING:
        path = fake("df" if variable == "df" else "lacking", script)
        status, lines = preflight(**(good | {variable: path}))
        assert status == 1
        (line,) = lines
        assert re.match(f"missing: .*{expected}", line), line


def test_preflight_names_everything_at_once(good, tmp_path):
    """Nobody has to install one thing to learn about the next."""
    status, lines = preflight(**(good | {"PYTHON": "no-such-python", "CXX": "no-such-compiler"}))
    assert status == 1
    assert len(lines) == 2
    assert "no-such-python" in lines[0] and "no-such-compiler" in lines[1]


def test_without_a_compiler_none_is_asked_for(good, fake):
    """Nor Python's headers; and whoever lacks one is told of the way without."""
    python = fake("no-headers", GOOD_PYTHON.format("*Python.h*"))
    lacking = good | {"CXX": "no-such-compiler", "PYTHON": python}
    assert preflight(**lacking, NO_COMPILER="1") == (0, [])
    status, lines = preflight(**lacking)
    assert status == 1 and "NO_COMPILER=1" in "".join(lines)


def test_make_passes_on_that_there_is_no_compiler():
    """Nought and nothing mean that there is one."""
    said = [
        call("make", "-n", "-C", ROOT, "-W", "x", "install", f"NO_COMPILER={value}").stdout
        for value in ("1", "", "0")
    ]
    assert ["--no-compiler" in text for text in said] == [True, False, False]


def test_preflight_finds_the_real_things(good):
    """Against this machine, which has them, for it has run the install."""
    real = {"PYTHON": sys._base_executable, "CXX": "g++"}
    assert preflight(**(good | real)) == (0, [])


@pytest.mark.slow
def test_make_install_stops_at_the_preflight(tmp_path):
    """A missing Python is one readable line, and no .venv is begun."""
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    done = call("make", "-C", tmp_path, "install", "PYTHON=no-such-python")
    assert done.returncode != 0
    assert "missing" in done.stderr and "no-such-python" in done.stderr
    assert not (tmp_path / ".venv").exists()


# Running the notebook

GOOD = [
    "import os, sys, pathlib\npathlib.Path('figures').mkdir(exist_ok=True)",
    "pathlib.Path('figures/profile.txt').write_text(PROFILE)\nprint('hello from', PROFILE)",
    "sys.executable",
]


def tiny_notebook(folder, *sources):
    """Write a tiny notebook of these code cells; its path."""
    v4, path = nbformat.v4, folder / "coloredmnist.ipynb"
    cells = [v4.new_markdown_cell("# Tiny\n\n## Section one")]
    cells.append(v4.new_code_cell('PROFILE = "full"', metadata={"tags": ["parameters"]}))
    cells += [v4.new_code_cell(source) for source in sources]
    nbformat.write(v4.new_notebook(cells=cells), path)
    return path


def tiny_project(folder, *sources):
    """A project with a tiny notebook of these code cells, and what earlier runs have left."""
    tiny_notebook(folder, *sources)
    for name in ("mnist/shipped.gz", "checkpoints/old.pt", "results/old.json"):
        (folder / "data" / name).parent.mkdir(parents=True)
        (folder / "data" / name).write_text("kept")
    return folder


def runner(root, *options):
    """The command that runs a project's notebook."""
    return [sys.executable, "-m", "tools.run_notebook", "--root", str(root), *options]


def snapshot(folder):
    """The hash of every file outside build/."""
    files = (p for p in folder.rglob("*") if p.is_file() and folder / "build" not in p.parents)
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def wait_for(path):
    """Wait until a file appears."""
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} did not appear"
        time.sleep(0.05)


RESULTS = """
import json, time
held = bytearray(b"x" * 300_000_000)
found = {"run_seconds": 12.34, "code_hash": "abc", "resumed": False}
pathlib.Path("figures/results.json").write_text(json.dumps(found))
time.sleep(1.2)
"""


@pytest.mark.slow
def test_a_finished_run_replaces_the_notebook(tmp_path):
    """It is executed with this Python and carries no trace of the runner; the cells' lines show.
    What it took is noted beside what `make bench` has measured. Of what runs have left in data/
    everything stays, or, if a fresh one is asked for, nothing but what was shipped."""
    tiny_project(tmp_path, *GOOD, RESULTS)
    bench = tmp_path / "figures" / "bench.json"
    bench.parent.mkdir()
    bench.write_text(json.dumps({"quick_seconds": 5, "full_seconds": 99, "full_memory": 1}))
    done = call(*runner(tmp_path))
    assert done.returncode == 0, done.stderr
    notebook = nbformat.read(tmp_path / "coloredmnist.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4, 5]
    assert code[3].outputs[0].data["text/plain"] == repr(sys.executable)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "papermill" not in (tmp_path / "coloredmnist.ipynb").read_text()
    assert [cell.metadata for cell in code] == [{"tags": ["parameters"]}, {}, {}, {}, {}]
    assert (tmp_path / "figures" / "profile.txt").read_text() == "full"
    for line in (
        r"\[1/5\] Section one \.\.\. \d+\.\d s",
        r"\[3/5\] Section one\nhello from full\n +\.\.\. .*",
        r"Finished in \d+ seconds, holding at most 0\.\d GB\..*",
    ):
        assert re.search(f"^{line}$", done.stdout, re.MULTILINE), line
    assert [p.name for p in tmp_path.glob("*.tmp")] == []
    record = json.loads(bench.read_text())
    assert 300_000_000 < record.pop("full_memory") < 900_000_000
    noted = {"quick_seconds": 5, "full_seconds": 12.3, "full_code_hash": "abc"}
    assert record.items() >= noted.items()
    assert {p.name for p in (tmp_path / "data").iterdir()} == {"mnist", "checkpoints", "results"}
    # once more; this time the notebook is edited meanwhile, which is not lost
    edited = "open('coloredmnist.ipynb', 'a').write(' ')"
    before = tiny_notebook(tmp_path, edited).read_bytes()
    done = call(*runner(tmp_path, "--fresh"))
    assert {p.name for p in (tmp_path / "data").iterdir()} == {"mnist"}
    assert done.returncode == 1
    assert "coloredmnist.ipynb" in done.stderr and "changed" in done.stderr
    assert (tmp_path / "coloredmnist.ipynb").read_bytes() == before + b" "


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("raise ValueError('the reason')", "ValueError: the reason"),
        ("os._exit(1)", "kernel died"),
    ],
    ids=["error", "dead kernel"],
)
def test_a_failed_run_leaves_the_notebook_alone(tmp_path, source, expected):
    """The exit status says so, the error is shown, and the failed copy is named."""
    tiny_project(tmp_path, GOOD[0], source, GOOD[1])
    before = (tmp_path / "coloredmnist.ipynb").read_bytes()
    done = call(*runner(tmp_path))
    assert done.returncode == 1
    assert expected in done.stderr
    assert (tmp_path / "coloredmnist.ipynb").read_bytes() == before
    copy = tmp_path / "build" / "coloredmnist.ipynb"
    assert str(copy) in done.stderr
    assert nbformat.read(copy, as_version=4).cells
    assert not (tmp_path / "figures" / "profile.txt").exists()  # nothing ran after the error


@pytest.mark.slow
def test_quick_changes_nothing_outside_its_folder(tmp_path):
    """All that it reads is a copy, all that it writes is in build/; figures there are its own."""
    tiny_project(tmp_path, *GOOD, "pathlib.Path('data/mnist/shipped.gz').read_text()")
    before, quick = snapshot(tmp_path), tmp_path / "build" / "quick"
    (quick / "figures").mkdir(parents=True)
    (quick / "figures" / "stale.png").write_text("of an earlier run")
    done = call(*runner(tmp_path, "--profile", "quick", "--fresh"))
    assert done.returncode == 0, done.stderr
    assert snapshot(tmp_path) == before
    assert (quick / "figures" / "profile.txt").read_text() == "quick"
    executed = nbformat.read(quick / "coloredmnist.ipynb", as_version=4)
    assert executed.cells[-1].outputs[0].data["text/plain"] == "'kept'"
    assert not (quick / "figures" / "stale.png").exists()


def test_a_profile_is_a_plain_name(tmp_path, monkeypatch, capsys):
    """No profile leads outside build/."""
    tiny_project(tmp_path, *GOOD)
    for profile in ("../elsewhere", "", "Full", "a b"):
        monkeypatch.setattr(sys, "argv", runner(tmp_path, "--profile", profile)[2:])
        with pytest.raises(SystemExit) as refusal:
            run_notebook.main()
        said = capsys.readouterr().err
        assert refusal.value.code == 2 and repr(profile) in said and "quick" in said
    assert not (tmp_path / "build").exists()


SLOW = """
import os, pathlib, time
pathlib.Path("NAME.part").write_text(str(os.getpid()))
os.rename("NAME.part", "NAME")
while not pathlib.Path("after NAME").exists():
    time.sleep(0.05)
"""


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_behind(tmp_path, stop):
    """While it works a second run is refused, and told why. Ctrl-C ends the kernel too, the
    notebook is as it was, and the next run may start."""
    cells = [SLOW.replace("NAME", name) for name in ("one", "two")]
    before = tiny_notebook(tmp_path, *cells).read_bytes()
    process = subprocess.Popen(
        runner(tmp_path),
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    wait_for(tmp_path / "one")
    second = call(*runner(tmp_path, *["--profile", "quick"] * (stop == signal.SIGINT)))
    (tmp_path / "after one").touch()
    wait_for(tmp_path / "two")  # undisturbed, the first goes on
    time.sleep(1.5)  # until what runs the cell has looked after its kernel
    os.killpg(process.pid, stop)
    output, _ = process.communicate(timeout=60)
    assert second.returncode == 1
    assert str(tmp_path) in second.stderr and "wait" in second.stderr
    assert process.returncode == 130, output
    assert "Traceback" not in output and "is as it was" in output
    assert (tmp_path / "coloredmnist.ipynb").read_bytes() == before
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "two").read_text()), 0)
    (tmp_path / "after two").touch()
    assert stop == signal.SIGTERM or call(*runner(tmp_path)).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("pandoc"), reason="nbconvert needs pandoc for LaTeX")
def test_latex_keeps_chinese_and_tables():
    """By nbconvert's own template: each Chinese sentence of the notebook, with a font for it, which
    the notebook's metadata bring along; tables as tables."""
    how = "--to=latex", "--no-input", "--stdout", "coloredmnist.ipynb"
    found = call(sys.executable, "-m", "nbconvert", *how).stdout
    preamble = found.partition(r"\begin{document}")[0]
    assert r"\usepackage[scheme=plain]{ctex}" in preamble
    cells = nbformat.read(ROOT / "coloredmnist.ipynb", as_version=4).cells
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    said = set(re.findall("[\u4e00-\u9fff]{4,}", "".join(texts)))
    assert len(said) > 100 and said <= set(re.findall("[\u4e00-\u9fff]{4,}", found))
    outputs = [
        o for c in cells for o in c.get("outputs", []) if "text/markdown" in o.get("data", {})
    ]
    written = [text for text in texts if re.search(r"^\|[ :-]+\|", text, re.MULTILINE)]
    assert found.count(r"\begin{longtable}") >= len(outputs) + len(written)


def test_committed_pictures_are_small_and_look_the_same():
    """A palette instead of four channels: as large, nearly the same colours, fewer bytes; and a
    picture that it does not make smaller stays."""
    figure, axis = plt.subplots()
    axis.plot(np.sin(np.arange(200) / 9), color="#0072B2")
    axis.set_title("A title")
    before = io.BytesIO()
    figure.savefig(before, format="png")
    plt.close(figure)
    after = slim_png(before.getvalue())
    with Image.open(before) as old, Image.open(io.BytesIO(after)) as new:
        assert new.mode == "P" and new.size == old.size
        change = np.abs(np.asarray(new.convert("RGB")).astype(int) - np.asarray(old.convert("RGB")))
    assert change.mean() < 1 and np.quantile(change, 0.999) < 16
    assert len(after) < 0.8 * len(before.getvalue())
    dot = io.BytesIO()
    Image.new("1", (1, 1)).save(dot, "PNG")
    assert slim_png(dot.getvalue()) == dot.getvalue()


# Every Python


def test_every_python_is_found_once(fake, tmp_path):
    """Of PATH and of pyenv, in the order of versions; those that are too old are left out."""
    pyenv = tmp_path / ".pyenv" / "versions" / "3.13.0" / "bin"
    pyenv.mkdir(parents=True)
    for name, version in (("python3", "3.11"), ("python3.9", "3.9"), ("python3.12", "3.12")):
        fake(name, f"echo {version}")
    fake("python3-config", "echo 3.14")
    fake("python3.15", "exit 1")
    fake(pyenv / "python3", "echo 3.13")
    fake(pyenv / "python3.12", "echo 3.12")
    found = versions.pythons(str(tmp_path), tmp_path)
    assert list(found) == ["3.11", "3.12", "3.13"]
    assert found["3.12"] == tmp_path / "python3.12" and found["3.13"] == pyenv / "python3"


def test_each_python_installs_and_runs_in_a_copy(fake, tmp_path, monkeypatch):
    """With that Python; a failure ends it, and is told from results."""
    project = tiny_project(tmp_path)
    (project / "tools").mkdir()
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt", "tools/x.py"):
        (project / name).touch()
    results = "build/quick/figures/results.json"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(versions, "ROOT", project)
    for fails in ("nothing", "install", "run"):
        script = f"""[ "$3" = {fails} ] && exit 2
        cd "$2" && [ -f tools/x.py ] && [ -f Makefile ] && [ -f data/mnist/shipped.gz ] || exit 1
        mkdir -p build/quick/figures && echo "{{\\"with\\": \\"$*\\"}}" > {results}"""
        fake("make", script)
        seconds, found = versions.quick_run("3.12", "a/python")
        assert len(seconds) == (1 if fails == "install" else 2)
        assert (found is None) == (fails != "nothing")
        if found:
            assert found["with"].endswith("run PROFILE=quick PYTHON=a/python")


def test_the_table_of_versions_compares_and_names_failures():
    """Values that differ from those of the first that finished; versions themselves may differ."""
    libraries = dict.fromkeys(versions.SHOWN, "1.0")
    runs = {
        "3.11": ((100.2, 60), {"versions": libraries, "a": 1, "b": [1, 2]}),
        "3.12": ((100, 61), {"versions": libraries | {"torch": "2.0"}, "a": 2, "b": [1, 3]}),
        "3.13": ((99,), None),
    }
    cells = [line.strip("| ").split(" | ") for line in versions.table(runs)]
    assert [len(row) for row in cells[2:]] == [len(cells[0])] * 3
    assert [row[-3:] for row in cells[2:]] == [
        ["100", "60", "0"],
        ["100", "61", "2"],
        ["99", "-", "failed"],
    ]
