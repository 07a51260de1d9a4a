"""A PKCS#11 module, loaded and initialised so that threads may use it.

python-pkcs11 calls `C_Initialize(NULL)`, which tells the module that the process has one thread, and yet releases the
GIL in every call: with SoftHSM, threads then crash the process. Its `lib.initialize` can be overridden, so the
subclass here passes CKF_OS_LOCKING_OK itself, through ctypes (PKCS#11 2.40, section 5.4).

Nothing is finalised at exit: finalising while another thread signs crashes, and a process that ends needs no goodbye.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import threading
from typing import Any

from hsmjwt.errors import TokenError, UsageError
from hsmjwt.hsm.binding import pkcs11
from hsmjwt.hsm.direct import Direct
from hsmjwt.hsm.faults import ckr_name, fault, rv_name, translated

_OS_LOCKING_OK = 2
_CKR_OK, _CANT_LOCK, _ALREADY_INITIALIZED = 0x0, 0xA, 0x191

_UNAVAILABLE = 1 << 31  # CK_UNAVAILABLE_INFORMATION is all ones; no PIN comes near either

_LOADED = 1  # PT_LOAD

# Places in CK_FUNCTION_LIST, whose first is its version (PKCS#11 2.40, section 3.6)
_C_INITIALIZE, _C_FINALIZE, _C_GET_TOKEN_INFO, _C_INIT_TOKEN = 1, 2, 7, 10


class _InitArgs(ctypes.Structure):
    """CK_C_INITIALIZE_ARGS (PKCS#11 2.40, section 3.7)."""

    _fields_ = (
        ("CreateMutex", ctypes.c_void_p),
        ("DestroyMutex", ctypes.c_void_p),
        ("LockMutex", ctypes.c_void_p),
        ("UnlockMutex", ctypes.c_void_p),
        ("flags", ctypes.c_ulong),
        ("pReserved", ctypes.c_void_p),
    )


class _TokenInfo(ctypes.Structure):
    """CK_TOKEN_INFO (section 3.2), for the part that python-pkcs11 does not tell."""

    _fields_ = (
        ("texts", ctypes.c_ubyte * 96),
        ("flags", ctypes.c_ulong),
        ("session_counts", ctypes.c_ulong * 4),
        ("ulMaxPinLen", ctypes.c_ulong),
        ("ulMinPinLen", ctypes.c_ulong),
        ("rest", ctypes.c_ubyte * 128),
    )


class _Lib(pkcs11._pkcs11.lib):  # noqa: SLF001 - the only way in
    """python-pkcs11's library object, whose initialising is ours."""

    def initialize(self) -> None:
        """Do nothing: `Library` has called C_Initialize by then."""


class Library:
    """An initialised module.

    `path` is the real path of the file, `lib` python-pkcs11's object for it. `shared` says that several threads may
    call into it at a time: not where the module cannot lock, nor where somebody else initialised it. `direct` goes
    without python-pkcs11 where the module has one function table for all who ask.
    """

    def __init__(self, path: str, functions: Any | None) -> None:
        """Take over a module; `functions` is its function table, None where it makes a new one at each call."""
        self.path = path
        self.shared = True
        self.used = False  # from the first session on nothing is finalised, since anything may be using it
        self.pid = os.getpid()
        self.direct = None if functions is None else Direct(functions)
        self._functions = functions
        self._owned = False
        self._alone = threading.RLock()
        self._together = contextlib.nullcontext()
        self.lib = self._initialise()

    @property
    def turn(self) -> contextlib.AbstractContextManager[object]:
        """Return what a thread holds while it calls into the module: a lock where the module is not shared."""
        return self._together if self.shared else self._alone

    def _initialise(self) -> Any:
        if self._functions is None:  # p11-kit's modules: they lock by themselves
            try:
                lib = pkcs11.lib(self.path)
            except pkcs11.PKCS11Error as error:
                raise _not_started(self.path, ckr_name(error)) from None
            self._owned = True
            return _kept(lib)
        result = self._call(_C_INITIALIZE, ctypes.byref(_InitArgs(flags=_OS_LOCKING_OK)))
        if result == _CANT_LOCK:
            self.shared = False
            result = self._call(_C_INITIALIZE, None)
        if result == _ALREADY_INITIALIZED:
            self.shared = False
        elif result != _CKR_OK:
            raise _not_started(self.path, rv_name(result))
        else:
            self._owned = True
        with translated("C_GetInfo"):
            return _kept(_Lib(self.path))

    def _call(self, place: int, argument: Any) -> int:
        function = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)(self._functions[place])  # type: ignore[index]
        return int(function(ctypes.cast(argument, ctypes.c_void_p) if argument is not None else None))

    def restart(self) -> None:
        """Finalise and initialise once more; only while nothing uses the module, and only where we initialised it.

        A module that read its files while another process wrote them knows no better until then.
        """
        if not self._owned:
            return
        if self._functions is None:
            with contextlib.suppress(pkcs11.PKCS11Error):
                self.lib.finalize()
            try:
                self.lib.initialize()
            except pkcs11.PKCS11Error as error:
                raise _not_started(self.path, ckr_name(error)) from None
            return
        self._call(_C_FINALIZE, None)
        self._owned = False
        self.lib = self._initialise()

    def longest_pin(self, slot_id: int) -> int | None:
        """Return how many bytes of PIN the token takes at most; None where the module does not say."""
        if self._functions is None:
            return None
        info = _TokenInfo()
        function = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_ulong, ctypes.c_void_p)(self._functions[_C_GET_TOKEN_INFO])
        if function(slot_id, ctypes.byref(info)) != _CKR_OK:
            return None
        longest = int(info.ulMaxPinLen)
        return longest if 0 < longest < _UNAVAILABLE else None

    def check_process(self) -> None:
        """Refuse to go on in a forked child: it shares the parent's login and may hang on the parent's locks."""
        if os.getpid() != self.pid:
            raise UsageError(
                "this process was forked after the PKCS#11 module was loaded",
                hint="start workers by spawn or exec, or open the key after the fork",
            )

    def init_token(self, slot_id: int, so_pin: str, label: str) -> None:
        """Initialise a token (C_InitToken, which python-pkcs11 lacks); `label` must fit into 32 bytes of UTF-8."""
        if self._functions is None:
            raise TokenError(f"tokens cannot be initialised through '{self.path}'", hint="name SoftHSM2's own module")
        pin, name = so_pin.encode(), label.encode()
        function = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)(
            self._functions[_C_INIT_TOKEN]
        )
        result = function(slot_id, pin, len(pin), name.ljust(32))
        if result != _CKR_OK:
            raise fault("C_InitToken", rv_name(result))


def _kept(lib: Any) -> Any:
    """Keep python-pkcs11's object for good: its end would finalise the module, or unload it, threads or not."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(lib))
    return lib


_loaded: dict[str, Library] = {}
_loading = threading.Lock()


def load(path: str) -> Library:
    """Load and initialise the module at `path` (a real path); the same object for the same path.

    Raises TokenError where the file is no library, no PKCS#11 module, or one that does not start (with the CKR then);
    UsageError in a process that was forked after it was loaded.
    """
    with _loading:
        library = _loaded.get(path)
        if library is None:
            library = _loaded[path] = Library(path, _function_table(path))
        library.check_process()
        return library


def _not_started(path: str, ckr: str | None) -> TokenError:
    """Say why C_Initialize failed; SoftHSM has one reason that a newcomer meets first."""
    seen = f"C_Initialize gave {ckr}" if ckr else "C_Initialize failed"
    if ckr == "CKR_GENERAL_ERROR" and "softhsm" in os.path.basename(path):
        return TokenError(
            f"SoftHSM cannot read its configuration, or the token folder that it names ({seen})",
            hint='set SOFTHSM2_CONF to a softhsm2.conf that you may read, or: eval "$(hsmjwt softhsm env)"',
            ckr=ckr,
        )
    return TokenError(
        f"module '{path}' cannot be started ({seen})",
        hint="it may miss a configuration, a service or a device; --verbose shows what it prints",
        ckr=ckr,
    )


def _function_table(path: str) -> Any | None:
    """Return the module's function table, or None where it makes a new one each time that it is asked."""
    if not _is_whole(path):
        raise TokenError(f"module '{path}' cannot be loaded: the file is cut short", hint="install it anew")
    try:
        module = ctypes.CDLL(path)  # never unloaded: ctypes has no dlclose
    except OSError as error:
        os.close(os.open(os.devnull, os.O_RDONLY))  # raises in its place where no file can be opened any more
        reason = str(error).removeprefix(f"{path}: ")
        raise TokenError(
            f"module '{path}' cannot be loaded: {reason}", hint="--module names a PKCS#11 library"
        ) from None
    try:
        get_list = module.C_GetFunctionList
    except AttributeError:
        raise TokenError(
            f"module '{path}' is a library but no PKCS#11 module: it has no C_GetFunctionList",
            hint="--module names a PKCS#11 library, for example libsofthsm2.so",
        ) from None
    get_list.restype = ctypes.c_ulong
    tables = []
    for _ in range(2):
        table = ctypes.c_void_p()
        result = get_list(ctypes.byref(table))
        if result != _CKR_OK or not table.value:
            raise TokenError(
                f"module '{path}' hands out no functions (C_GetFunctionList gave {rv_name(result)})",
                ckr=rv_name(result),
            )
        tables.append(table.value)
    if tables[0] != tables[1]:
        return None  # p11-kit hands out a new table each time, so that ours would not be python-pkcs11's
    return ctypes.cast(tables[0], ctypes.POINTER(ctypes.c_void_p))


def _is_whole(path: str) -> bool:
    """Tell whether an ELF file has all that its program header promises (System V ABI, chapter 5).

    Loading one that was cut off kills the process by SIGBUS. What is no 64-bit ELF file is for the loader to judge.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            if head[:6] != b"\x7fELF\x02\x01" or len(head) < 64:
                return True
            start, size, count = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
            file.seek(start)
            table = file.read(size * count)
            end = os.fstat(file.fileno()).st_size
    except OSError:
        return True
    if size < 56 or len(table) < size * count:
        return False
    segments = (struct.unpack_from("<IIQQQQ", table, size * number) for number in range(count))
    return all(offset + length <= end for kind, _, offset, _, _, length in segments if kind == _LOADED)
