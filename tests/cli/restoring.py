"""A folder as it was before, for tests that do one thing again and again."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def restored(folder: Path) -> Iterator[None]:
    """Put a folder back after the block as it was before."""
    with tempfile.TemporaryDirectory() as kept:
        shutil.copytree(folder, kept, dirs_exist_ok=True)
        try:
            yield
        finally:
            for each in folder.iterdir():
                if each.is_dir():
                    shutil.rmtree(each)
                else:
                    each.unlink()
            shutil.copytree(kept, folder, dirs_exist_ok=True)
