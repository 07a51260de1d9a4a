"""Loads msgspec without typing_extensions, which costs a start ten milliseconds.

msgspec takes what it needs from there or, where that is not installed, from typing, which has it all since Python 3.11.
Nothing is changed for others: who imports typing_extensions later gets it.
"""

import sys

if "typing_extensions" not in sys.modules:
    sys.modules["typing_extensions"] = None  # type: ignore[assignment] # an import then fails, as if it were absent
    try:
        import msgspec  # noqa: F401
    finally:
        del sys.modules["typing_extensions"]
