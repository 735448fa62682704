"""Files that are never half written, and a digest of what they were made from."""

import hashlib
import os
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path):
    """Yield a temporary path beside `path`, of the same kind; rename it into place in the end, or
    remove it if the block fails."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def digest(paths):
    """SHA-256 over the content of files, in order."""
    return hashlib.sha256(b"\0".join(Path(path).read_bytes() for path in paths)).hexdigest()
