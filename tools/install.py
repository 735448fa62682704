"""Make .venv: the pinned requirements and MemTorch. Started by `make install`.

A stamp in .venv holds a hash of what was asked for. If it matches, nothing is done; if not (the
requirements changed, or an install was interrupted), pip completes what is there. Python's
standard library only, because this runs before anything is installed.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

from .files import ROOT, digest

VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".installed"
WHEELS = VENV / "wheels"
BUILD_LOG = VENV / "memtorch-build.log"

PIP = [PYTHON, "-m", "pip", "--disable-pip-version-check"]
# MemTorch's setup imports torch (no isolation) and requires a package that is gone (no deps).
MEMTORCH_FLAGS = ["--no-build-isolation", "--no-deps"]


def wanted(memtorch, compiled=True):
    """Return the hash of everything that the install depends on."""
    files = [ROOT / "requirements.txt", ROOT / "requirements-dev.txt"]
    return digest(files, memtorch if compiled else f"{memtorch}, a stand-in")


def is_installed(memtorch, compiled=True):
    """Tell whether .venv was finished for these requirements."""
    return STAMP.is_file() and STAMP.read_text().strip() == wanted(memtorch, compiled)


def run(*command, **kwargs):
    """Run a command in the project's root; an error ends the install."""
    subprocess.run([str(part) for part in command], cwd=ROOT, check=True, **kwargs)


def succeeds(*command):
    """Tell whether a command exists and exits with status 0, without showing what it prints."""
    try:
        done = subprocess.run([str(c) for c in command], cwd=ROOT, capture_output=True)
    except FileNotFoundError:
        return False
    return done.returncode == 0


def memtorch_works(memtorch, compiled=True):
    """Tell whether .venv has this MemTorch and its compiled part, or the notebook's stand-in for
    that, loads with .venv's torch."""
    name, version = memtorch.split("==")
    return succeeds(
        PYTHON,
        "-c",
        "import importlib.metadata, torch, memtorch_bindings\n"
        f"assert importlib.metadata.version({name!r}) == {version!r}\n"
        f"assert hasattr(memtorch_bindings, 'refuse') != {compiled}",
    )


def wheel_command(memtorch, *extra):
    """Return the command that builds MemTorch's wheel."""
    return [str(c) for c in [*PIP, "wheel", *MEMTORCH_FLAGS, *extra, "-w", WHEELS, memtorch]]


def build_environment():
    """Return the environment for compiling MemTorch: its own flags, but no debug information.

    These variables replace Python's own flags, of which -DNDEBUG must stay: MemTorch's assertions
    do not compile.
    """
    env = dict(os.environ)
    for name in ("CFLAGS", "CXXFLAGS"):
        env[name] = f"{env.get(name, '')} -DNDEBUG -g0".strip()
    return env


@contextmanager
def building(memtorch):
    """Build MemTorch's wheel in the background, and wait for it at the end of the block."""
    with BUILD_LOG.open("w") as log:
        build = subprocess.Popen(
            wheel_command(memtorch),
            cwd=ROOT,
            env=build_environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # one group, so that an interrupt can stop every compiler
        )
    try:
        yield
        if build.wait() != 0:
            tail = "\n".join(BUILD_LOG.read_text(errors="replace").splitlines()[-25:])
            sys.exit(f"{tail}\nMemTorch could not be built; the whole log: {BUILD_LOG}")
    finally:
        if build.poll() is None:
            os.killpg(build.pid, signal.SIGTERM)
            build.wait()


def install_wheel():
    """Install the wheel that was just built."""
    (wheel,) = WHEELS.glob("*.whl")
    run(*PIP, "install", "-q", "--no-deps", "--force-reinstall", wheel)


# The notebook's own function, which needs nothing that is not there yet.
STAND_IN = """
from tools.definitions import NOTEBOOK, execute_definitions
names = {"__name__": "stand_in"}
execute_definitions(NOTEBOOK, names, beginning="# Installing")
names["install_memtorch"](compiled=False)
"""


def install(memtorch, compiled=True):
    """Make .venv or complete it."""
    started = time.monotonic()

    def say(text):
        print(f"[{time.monotonic() - started:4.0f} s] {text}", flush=True)

    STAMP.unlink(missing_ok=True)
    if not succeeds(*PIP, "--version"):
        say("making .venv (a few seconds)")
        run(sys.executable, "-m", "venv", "--clear", VENV)

    say("installing torch (one to three minutes; the download is about 3 GB)")
    tools = ["torch", "torchvision", "numpy", "setuptools", "wheel", "ninja"]
    run(*PIP, "install", "-c", "requirements.txt", *tools)

    rest = [*PIP, "install", "-q", "-r", "requirements-dev.txt"]
    if memtorch_works(memtorch, compiled) or not compiled:
        say("installing the other packages (about a minute)")
        run(*rest)
    else:
        for old in WHEELS.glob("*.whl"):
            old.unlink()
        say("building MemTorch, and installing the other packages meanwhile (about two minutes)")
        with building(memtorch):
            run(*rest)
            say("the other packages are installed; waiting for MemTorch")
        install_wheel()
        if not memtorch_works(memtorch):
            # pip's cache may hold a wheel that was built against another torch.
            say("building MemTorch again, past pip's cache (about two minutes)")
            run(*wheel_command(memtorch, "--no-cache-dir"), env=build_environment())
            install_wheel()

    if not memtorch_works(memtorch, compiled):
        say("installing MemTorch's Python part, with a stand-in for what would be compiled")
        run(PYTHON, "-c", STAND_IN)

    say("checking that MemTorch can be imported")
    run(PYTHON, "-c", "import memtorch")
    STAMP.write_text(wanted(memtorch, compiled) + "\n")
    print(f"Installed in {time.monotonic() - started:.0f} seconds.", flush=True)


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memtorch", required=True, help="MemTorch's requirement, name==version")
    parser.add_argument("--check", action="store_true", help="only tell whether all is installed")
    parser.add_argument("--no-compiler", action="store_true", help="compile nothing of MemTorch")
    args = parser.parse_args()
    if args.check:
        sys.exit(not is_installed(args.memtorch, not args.no_compiler))
    for number in (signal.SIGINT, signal.SIGTERM):  # being stopped is like Ctrl-C
        signal.signal(number, signal.default_int_handler)
    try:
        install(args.memtorch, not args.no_compiler)
    except KeyboardInterrupt:
        sys.exit("Interrupted. `make install` continues from here.")
    except subprocess.CalledProcessError as error:
        sys.exit(
            f"This failed: {' '.join(error.cmd)}\n"
            "The reason stands above. `make install` continues from here."
        )


if __name__ == "__main__":
    main()
