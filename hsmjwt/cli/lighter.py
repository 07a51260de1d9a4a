"""Makes a start lighter, for the command line alone; to be imported before what is large.

The garbage collector looks less often: the tens of thousands of objects that a start makes all stay, and looking
through them again and again costs a tenth of it. msgspec is loaded without typing_extensions, which costs ten
milliseconds: it takes what it needs from there or, where that is not installed, from typing, which has it all since
Python 3.11. Who imports typing_extensions later gets it.
"""

import gc
import sys

gc.set_threshold(100_000)

if "typing_extensions" not in sys.modules:
    sys.modules["typing_extensions"] = None  # type: ignore[assignment] # an import then fails, as if it were absent
    try:
        import msgspec  # noqa: F401
    finally:
        del sys.modules["typing_extensions"]
