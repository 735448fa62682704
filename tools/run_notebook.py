"""Execute coloredmnist.ipynb with papermill. Started by `make run`.

The full profile runs in the project's root, and a finished run replaces the notebook there. Every
other profile runs in a copy, build/<profile>/, and changes nothing outside it.
"""

import argparse
import base64
import functools
import logging
import re
import shutil
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
import papermill
import zmq
from filelock import FileLock, Timeout
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets import default

from .files import NOTEBOOK, ROOT, copy_project, replacing
from .memory import peak_memory
from .pictures import describe_pictures, slim_png
from .records import note_full_run

NAME = NOTEBOOK.name
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
INTERRUPTED = 130  # what shells report after Ctrl-C


class ThisPythonsKernel(AsyncKernelManager):
    """Starts the kernel with the Python that runs this script, whatever kernels are registered.

    What the kernel itself complains about (not the cells) goes to a file.
    """

    log_file = None  # set for the run

    @default("kernel_spec_manager")
    def _no_registered_kernels(self):
        # With no folder to look in, "python3" is ipykernel's own: sys.executable.
        return KernelSpecManager(kernel_dirs=[])

    @default("transport_encryption")
    def _encrypted_if_possible(self):
        return "auto" if zmq.has("curve") else "disabled"

    async def start_kernel(self, **kwargs):
        """Start it with the log file as its standard error."""
        return await super().start_kernel(stderr=self.log_file, **kwargs)


class Progress:
    """Prints a line for every code cell, and what the cell prints as it prints it."""

    def __init__(self, out=sys.stdout):
        self.out = out
        self.line_is_open = False

    def notebook_start(self, notebook):
        """Number the code cells, find the heading above each, keep the notebook that fills."""
        self.notebook = notebook
        code = [
            i for i, c in enumerate(notebook.cells) if c.cell_type == "code" and c.source.strip()
        ]
        self.labels = {}
        heading = ""
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type == "markdown":
                heading = ([heading, *re.findall(r"^#+ +(.+)$", cell.source, re.MULTILINE)])[-1]
            elif index in code:
                self.labels[index] = f"[{code.index(index) + 1}/{len(code)}] {heading}".rstrip()

    def cell_start(self, cell, cell_index):
        """Name the cell that starts now."""
        self.started = time.monotonic()
        self.out.write(self.labels[cell_index])
        self.out.flush()
        self.line_is_open = self.silent = True

    def cell_end(self, cell, cell_index, execute_reply):
        """Add how long it took: on its line, or on a new one below what it printed."""
        if self.line_is_open and not self.silent:
            self.out.write("\n")
        self.out.write(
            f"{'' if self.silent else '   '} ... {time.monotonic() - self.started:.1f} s\n"
        )
        self.out.flush()
        self.line_is_open = False

    def write(self, text):
        """Pass on what the cell prints."""
        if self.silent:
            self.out.write("\n")
        self.out.write(text)
        self.silent = False
        self.line_is_open = not text.endswith("\n")

    def flush(self):
        """Show it at once."""
        self.out.flush()


@contextmanager
def only_run_in(folder):
    """Refuse to start while another run works in the same folder."""
    (folder / "build").mkdir(exist_ok=True)
    lock = FileLock(folder / "build" / ".lock", blocking=False)
    try:
        lock.acquire()  # the system drops it with the process, however that ends
    except Timeout:
        sys.exit(f"Another run is working in {folder}: wait until it has finished, or stop it.")
    try:
        yield
    finally:
        lock.release()


def make_copy(root, profile):
    """Return build/<profile>/ with the notebook and the shipped data in it."""
    copy = root / "build" / profile
    copy_project(root, copy)
    shutil.rmtree(copy / "figures", ignore_errors=True)  # figures there are of this run only
    return copy


def finished(path):
    """Return the executed notebook without what papermill and nbclient noted about the run, with
    smaller pictures (the fine ones are in figures/) and a text for each."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("papermill", None)
    notebook.metadata["kernelspec"] = dict(KERNELSPEC)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if cell.metadata.get("tags") == []:
            del cell.metadata["tags"]
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                png = slim_png(base64.b64decode(output.data["image/png"]))
                output.data["image/png"] = base64.b64encode(png).decode()
    describe_pictures(notebook)
    nbformat.validate(notebook)
    return notebook


def run(root, profile, fresh):
    """Execute the notebook; return the exit status."""
    folder = root if profile == "full" else make_copy(root, profile)
    notebook = folder / NAME
    output = root / "build" / (NAME if profile == "full" else f"coloredmnist-{profile}.ipynb")
    before = notebook.read_bytes()
    if fresh:
        for name in ("checkpoints", "results"):
            shutil.rmtree(folder / "data" / name, ignore_errors=True)

    kernel_log = root / "build" / "kernel.log"
    ThisPythonsKernel.log_file = kernel_log.open("w")
    progress = Progress()
    started = time.monotonic()
    print(f"Running {NAME} with the {profile} profile.", flush=True)
    try:
        execute = functools.partial(
            papermill.execute_notebook,
            notebook,
            output,
            parameters=None if profile == "full" else {"PROFILE": profile},
            kernel_name="python3",
            language="python",
            kernel_manager_class=ThisPythonsKernel,
            cwd=folder,
            progress_bar=False,
            stdout_file=progress,
            stderr_file=progress,
            on_notebook_start=progress.notebook_start,
            on_cell_execute=progress.cell_start,
            on_cell_executed=progress.cell_end,
            record_timing=False,
            request_save_on_cell_execute=False,  # twice a cell: a tenth of a quick run
        )
        _, memory = peak_memory(execute)
    except PapermillExecutionError as error:
        print(f"{error}\nThe run failed in the cell above; {NAME} is as it was.", file=sys.stderr)
        print(f"The failed copy, to look into: {output}", file=sys.stderr)
        return 1
    except DeadKernelError:
        nbformat.write(progress.notebook, output)
        print(f"\nThe kernel died (out of memory?); {NAME} is as it was.", file=sys.stderr)
        print(f"The copy up to there: {output}; its last words: {kernel_log}", file=sys.stderr)
        return 1

    result = finished(output)
    if notebook.read_bytes() != before:
        print(f"{NAME} was changed while it ran, so it is left alone.", file=sys.stderr)
        print(f"The executed copy of what it was: {output}", file=sys.stderr)
        return 1
    with replacing(notebook) as temporary:
        nbformat.write(result, temporary)
    output.unlink()
    if profile == "full":
        note_full_run(folder / "figures", memory)
    held = f", holding at most {memory / 1e9:.1f} GB" if memory else ""
    print(f"Finished in {time.monotonic() - started:.0f} seconds{held}. Look at {notebook}")
    print(f"and at the figures and results in {folder / 'figures'}")
    return 0


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--profile", default="full", help="full, or another that the notebook knows"
    )
    parser.add_argument("--fresh", action="store_true", help="first remove checkpoints and results")
    parser.add_argument("--root", type=Path, default=ROOT, help="the project")
    args = parser.parse_args()
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", args.profile):
        parser.error(f"PROFILE={args.profile!r} is not a profile's name, such as full or quick")
    root = args.root.resolve()
    if not (root / NAME).is_file():
        parser.error(f"there is no {NAME} in {root}")
    for number in (signal.SIGINT, signal.SIGTERM):  # being stopped is like Ctrl-C
        signal.signal(number, signal.default_int_handler)
    with only_run_in(root):
        try:
            return run(root, args.profile, args.fresh)
        except KeyboardInterrupt:
            logging.getLogger("asyncio").disabled = True  # it would report the cell that was left
            print(f"\nInterrupted; {NAME} is as it was. Finished checkpoints are kept.")
            return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
