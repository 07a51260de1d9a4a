"""jose/ stands alone: the standard library, no I/O, no clock."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from hsmjwt import jose

MODULES = [info.name for info in pkgutil.iter_modules(jose.__path__)]
FORBIDDEN = {"os", "io", "time", "socket", "subprocess", "pathlib", "tempfile", "random", "secrets", "threading"}


def test_jose_loads_no_third_partys_code():
    imports = ", ".join(f"hsmjwt.jose.{name}" for name in MODULES)
    program = f"import sys; before = set(sys.modules); import {imports}; print(*sorted(set(sys.modules) - before))"
    out = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    tops = {name.partition(".")[0] for name in out.split()}
    assert "hsmjwt" in tops
    assert not tops - set(sys.stdlib_module_names) - {"hsmjwt"}
    assert not tops & {"dataclasses", "importlib_metadata"}
    assert "importlib.metadata" not in out.split()


@pytest.mark.parametrize("name", MODULES)
def test_jose_reads_no_clock_and_no_file(name):
    tree = ast.parse((Path(jose.__path__[0]) / f"{name}.py").read_text(encoding="utf-8"))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Attribute):
            assert node.attr not in {"now", "utcnow", "today"}, f"line {node.lineno} reads the clock"
        elif isinstance(node, ast.Name):
            assert node.id not in {"open", "print", "input"}, f"line {node.lineno}"
    assert not imported & FORBIDDEN
