"""Runs hsmjwt, or a script, with functions of the real module replaced: a token's faults without a compiler.

    python patched.py FAULT[,FAULT…] hsmjwt-arguments…
    python patched.py FAULT[,FAULT…] -c CODE arguments…
    python patched.py --serve

The last one does what the others do for each request on stdin, in a process forked for it: with everything imported
that takes a tenth of the time.

SoftHSM's function table is memory that may be written. Each fault puts a callback in place of one function, which calls
the real one and changes what comes back. `NAME=0xCODE` answers with a return code in place of the function NAME of
function_table.py, and `NAME=0xCODE*2` does so twice; `NAME~SECONDS` delays it; `NAME!` kills the process in place of
it, and `NAME!!` after it; `NAME@FILE` notes each call there. The rest stands in token_faults.py. `-` is no fault.
"""

from __future__ import annotations

import json
import os
import re
import sys

from function_table import FUNCTIONS, ULONGS, answer, delay, die, note, real, replace
from token_faults import CLEARED, FAULTS, FLAGS, flag

__all__ = [
    "ULONGS",
    "answer",
    "flag",
    "note",
    "opened",
    "real",
    "replace",
    "signer",
]  # what the scripts of tests use, by `import patched`


def arrange(text):
    """Arrange for one fault."""
    name, sign, argument = re.fullmatch(r"(\w+)(!!|[=~!@*]?)(.*)", text).groups()
    if name in FUNCTIONS:
        {
            "=": lambda: answer(name, argument),
            "~": lambda: delay(name, argument),
            "!": lambda: die(name, after=False),
            "!!": lambda: die(name, after=True),
            "@": lambda: note(name, argument),
        }[sign]()
    elif name in FLAGS or name in CLEARED:
        flag(name, argument)
    else:
        FAULTS[name](argument)


def opened(deadline=30.0, rules=None):
    """Load the module the way the CLI does, for a script; return it with how to log in."""
    from hsmjwt.deadline import Deadline
    from hsmjwt.hsm.discovery import find_module
    from hsmjwt.hsm.login import LoginRules
    from hsmjwt.hsm.module import Login, Module
    from hsmjwt.secret import parse_source, resolve

    clock = Deadline(deadline)
    source = parse_source(os.environ["HSMJWT_PIN_SOURCE"])
    folder = os.path.join(os.environ["HOME"], "state")
    os.makedirs(folder, mode=0o700, exist_ok=True)

    def read(_token):
        return resolve(source, purpose="PIN", question="PIN", prompt=None, environ=os.environ, deadline=clock)

    module = Module(find_module(os.environ["HSMJWT_MODULE"], "the test"), folder, clock, print)
    return module, Login(source, read, rules or LoginRules())


def signer(deadline=30.0, say=lambda _: None, rules=None):
    """Open a signer the way the CLI does, for a script; the key is HSMJWT_KEY's."""
    from hsmjwt.hsm.signer import Pkcs11Signer
    from hsmjwt.hsm.uri import parse

    module, login = opened(deadline, rules)
    try:
        uri = parse(os.environ["HSMJWT_KEY"])
        return Pkcs11Signer(module, module.find_token(uri), uri, login, say)
    finally:
        module.settle()


def serve():
    """Fork a process for each request, a line of JSON, and answer with its exit code; returns in the new process."""
    import hsmjwt.cli.sign
    import hsmjwt.custody.keys
    import hsmjwt.hsm.signer
    import hsmjwt.verify  # noqa: F401 - what a command would import, once for all

    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            for fd, path in enumerate(request["streams"]):
                os.dup2(os.open(path, os.O_RDWR), fd)
            os.environ.clear()
            os.environ.update(request["environ"])
            return request["argv"]
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(code, flush=True)
    os._exit(0)


def main(faults, *argv):
    """Arrange for the faults, then run hsmjwt or the code."""
    for each in faults.split(","):
        if each != "-":
            arrange(each)
    sys.modules["patched"] = sys.modules["__main__"]
    if argv[0] == "-c":
        sys.argv = ["-c", *argv[2:]]
        exec(argv[1], {"__name__": "__main__"})
    else:
        sys.argv = ["hsmjwt", *argv]
        from hsmjwt.cli.main import entry

        entry()


if __name__ == "__main__":
    sys.path[0] = os.getcwd()  # as `python -m hsmjwt` has it
    main(*(serve() if sys.argv[1:] == ["--serve"] else sys.argv[1:]))
