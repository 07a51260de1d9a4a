"""Fill a cache folder: beside what is there, a token and the note of the quick path for each of COUNT other profiles.

fill_cache.py FOLDER COUNT
"""

from __future__ import annotations

import hashlib
import os
import sys
import time

from hsmjwt import __version__
from hsmjwt.bearer import AccessToken
from hsmjwt.cli import quick
from hsmjwt.store import note
from hsmjwt.store.file import FileStore


def main(path: str, count: str) -> None:
    """Fill it."""
    store = FileStore(path, warn=sys.exit, on_disk=False)
    now = time.time()
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    for number in range(int(count)):
        profile = f"other-{number}"
        key = hashlib.sha256(profile.encode()).hexdigest()
        token = AccessToken(value=f"{profile}-" * 50, token_type="Bearer", fetched_at=now, expires_at=now + 86400)
        store.put(key, token, profile=profile, scope="read")

        def text(file: str, status: os.stat_result, label: str = profile, value: str = token.value) -> str:
            return quick.note_text(
                known_by=quick.fingerprint(os.environ, [label], __version__) or "",
                source=quick.source_line(file, status),
                life=(now, now + 86000, now + 86400),
                label=label,
                removes=[],
                token=value,
            )

        note.leave(folder, key, token.value, quick.note_name([profile]) or "", text)


main(*sys.argv[1:])
