"""The house: who may import whom, and how large a file and a function may be."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hsmjwt"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {
    ".".join(("hsmjwt", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): ast.parse(
        path.read_text()
    )
    for path in FILES
}
ONE_PLACE = {  # which library is imported where, and nowhere else
    "pkcs11": {"hsm.binding"},
    "requests": {"oauth.transport", "oauth.tls"},
    "urllib3": {"oauth.transport"},
    "asn1crypto": {"x509"},
    "cryptography": {"verify"},
    "typer": {"cli.typed"},
    "rich": {"cli.output"},
    "flask": {"demo"},
    "authlib": {"demo"},
}
MAY_IMPORT = {  # beside itself; the packages that the rest stands on
    "jose": {"errors"},
    "guard": {"errors", "jose"},
    "store": {"errors", "bearer", "deadline", "jose", "private"},
    "hsm": {"errors", "jose", "secret", "deadline", "nearest", "private"},
    "oauth": {
        *("errors", "jose", "guard", "bearer", "deadline", "secret", "config", "folders", "nearest", "keychoice"),
        *("hsm.uri", "toml_tables"),
    },
}


def imports(tree: ast.AST) -> set[str]:
    """Every module that is imported, at the top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names} & set(TREES) or {node.module}
    return found


IMPORTS = {name: imports(tree) for name, tree in TREES.items()}


@pytest.mark.parametrize("library", ONE_PLACE)
def test_a_library_is_imported_in_its_own_place_alone(library):
    users = {name for name, used in IMPORTS.items() if any(each.split(".")[0] == library for each in used)}
    places = tuple(f"hsmjwt.{place}" for place in ONE_PLACE[library])
    assert all(user.startswith(places) for user in users), users


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_stands_on_what_it_may_stand_on(package):
    allowed = tuple(f"hsmjwt.{name}" for name in (*MAY_IMPORT[package], package))
    for name, used in IMPORTS.items():
        if name.startswith(f"hsmjwt.{package}."):
            ours = {each for each in used if each.startswith("hsmjwt.")}
            assert all(each.startswith(allowed) for each in ours), (name, ours)


def test_there_is_no_circle_among_the_imports():
    left = {name: {each for each in used if each in TREES} for name, used in IMPORTS.items()}
    while True:
        free = [name for name, used in left.items() if not used & set(left) - {name}]
        if not free:
            break
        for name in free:
            del left[name]
    assert left == {}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_and_its_functions_can_be_read_at_once(path):
    assert len(path.read_text().splitlines()) <= 400
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name


def test_imports_stand_inside_functions_only_where_commands_are_put_together():
    for name, tree in TREES.items():
        if name.startswith(("hsmjwt.cli", "hsmjwt.compose")):
            continue
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):
                inner = [node for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)]
                assert not inner, (name, function.name)


def test_no_text_speaks_of_papers_that_the_project_does_not_have():
    there = {path.name for path in PACKAGE.parent.rglob("*.md") if ".venv" not in path.parts}
    for path in (*FILES, *(PACKAGE.parent / "tests").rglob("*.py")):
        named = set(re.findall(r"\b[\w-]+\.md\b", path.read_text()))
        assert named <= there, (path, named - there)
