"""Where the project is, and files that are never half written. Python's standard library only, for
`tools.install` needs it before anything is installed."""

import hashlib
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "coloredmnist.ipynb"
FIGURES = ROOT / "figures"


@contextmanager
def replacing(path):
    """Yield a temporary path beside `path`, of the same kind and this process's own; rename it into
    place in the end, or remove it if the block fails. The folder is made if it is missing."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()} {path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path, **options):
    """Return a JSON file's content; `missing=value`: that value if there is no such file."""
    if "missing" in options and not path.is_file():
        return options["missing"]
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path, content):
    """Replace a JSON file."""
    with replacing(path) as temporary:
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        temporary.write_text(text, encoding="utf-8")


def digest(paths, *texts):
    """SHA-256 over the content of files, then over texts, in order."""
    parts = [Path(path).read_bytes() for path in paths] + [text.encode() for text in texts]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def copy_project(root, folder):
    """Copy what a run of the notebook needs, the notebook and the shipped data, into a folder."""
    mnist = folder / "data" / "mnist"
    mnist.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(root / NOTEBOOK.name, folder / NOTEBOOK.name)
    if mnist.is_symlink():  # of an earlier version; what it leads to is not ours to write
        mnist.unlink()
    if (root / "data" / "mnist").is_dir():
        shutil.copytree(root / "data" / "mnist", mnist, dirs_exist_ok=True)
