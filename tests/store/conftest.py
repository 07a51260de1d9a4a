"""Fixtures of the file store's tests; each file says for itself where the `folder` lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsmjwt.store.file import FileStore


@pytest.fixture
def warnings() -> list[str]:
    """What the store has said."""
    return []


@pytest.fixture
def store(folder: Path, warnings: list[str]) -> FileStore:
    """A store in the test's own folder."""
    return FileStore(str(folder), warn=warnings.append)
