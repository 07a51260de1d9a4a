"""The house: who may import whom, and how large a file and a function may be."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
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
    "asn1crypto": {"x509.der", "x509.public", "x509.request", "x509.signature"},
    "cryptography": {"softkey", "verify", "verify_chain"},
    "typer": {"cli.typed"},
    "rich": {"cli.output"},
    "flask": {"demo"},
    "werkzeug": {"demo"},
    "authlib": {"demo"},
    "joserfc": {"demo"},
}
BY_TEXT = {"cli.gate", "demo"}  # who imports what a text names: one verb of many, libraries that may not be installed
MAY_IMPORT = {  # beside itself; who stands on less takes away what is too much here
    "jose": set(),
    "guard": {"errors", "jose", "nearest", "toml_lines", "toml_tables"},
    "store": {"errors", "bearer", "deadline", "jose", "private"},
    "hsm": {
        *("errors", "jose", "secret", "deadline", "nearest", "private", "whole_file"),
        *("x509.certificate", "x509.chain", "x509.public"),
    },
    "oauth": {
        *("errors", "jose", "guard", "bearer", "deadline", "secret", "config", "nearest", "keychoice", "keyrules"),
        *("hsm.uri", "toml_tables"),
    },
    "cli": {
        *("bearer", "compose", "config", "config_append", "custody", "deadline", "demo", "errors", "folders"),
        *("guard.keypolicy",),
        *("guard.policy", "jose", "keychoice", "nearest", "profile_check", "profile_init", "secret", "softhsm", "x509"),
        *("hsm.discovery", "hsm.keygen", "hsm.login", "hsm.module", "hsm.slots"),
        *("hsm.uri", "oauth.broker", "oauth.endpoint", "oauth.exchange", "oauth.failure", "oauth.named"),
        *("oauth.issuer", "oauth.origins", "oauth.profile", "oauth.provider"),
    },
    "__main__": {"cli.main"},
    "bearer": set(),
    "config": {"config_tables", "errors", "folders", "toml_tables"},
    "config_append": {"config", "deadline", "errors", "file_lock", "private", "whole_file"},
    "custody": {
        *("compose", "config", "errors", "guard.policy", "jose", "keyrules", "secret", "softkey", "verify", "x509"),
        *("hsm.certificates", "hsm.creating", "hsm.deleting", "hsm.importing"),
        *("hsm.keygen", "hsm.listing", "hsm.module", "hsm.objects", "hsm.slots", "hsm.unfinished", "hsm.uri"),
        *("hsm.shells", "hsm.ways"),
        *("guard.keypolicy", "hsm.facts", "verify_chain"),
        *("config_edit", "deadline", "nearest", "oauth.profile", "private", "profile_text", "toml_lines"),
        *("file_lock", "toml_tables", "whole_file"),
    },
    "config_edit": {
        *("config", "deadline", "errors", "file_lock", "profile_text", "toml_lines", "toml_tables", "whole_file"),
    },
    "config_tables": {"errors", "hsm.uri", "nearest", "toml_lines", "toml_tables"},
    "deadline": {"errors"},
    "demo": {"deadline", "demo_keys", "demo_memory", "errors"},
    "demo_keys": {"errors"},
    "demo_memory": set(),
    "errors": set(),
    "file_lock": {"deadline"},
    "folders": {"errors"},
    "keychoice": {"config", "errors", "hsm.uri", "jose.encoding", "keyrules", "nearest", "secret", "toml_tables"},
    "keyrules": {
        *("config", "errors", "guard.policy", "hsm.uri", "jose.algorithms", "jose.claims", "jose.encoding"),
    },
    "nearest": set(),
    "pipes": {"deadline"},
    "private": set(),
    "profile_check": {
        *("compose.halves", "config", "errors", "hsm.discovery", "jose.claims", "keyrules", "oauth", "secret"),
        "toml_tables",
    },
    "profile_init": {
        *("config", "config_append", "deadline", "errors", "hsm.uri", "jose.encoding", "nearest", "oauth"),
        *("profile_text", "toml_lines", "toml_tables"),
    },
    "profile_text": {"oauth.provider", "toml_lines"},
    "secret": {"deadline", "errors", "nearest", "pipes", "secret_text"},
    "secret_text": set(),
    "softhsm": {"errors", "folders", "hsm.discovery", "hsm.provision", "private"},
    "softkey": {"errors", "jose", "secret", "x509"},
    "toml_lines": set(),
    "toml_tables": {"errors", "nearest", "toml_lines"},
    "verify": {"errors", "jose"},
    "verify_chain": set(),
    "whole_file": {"private"},
    "x509": {"errors", "jose", "nearest"},
}
ON_THE_WAY_IN = {  # what is loaded before anything is known about the call, and all that it loads
    "hsmjwt": set(),
    "hsmjwt.cli": set(),
    "hsmjwt.__main__": {"hsmjwt.cli.main"},
    "hsmjwt.cli.main": {"_signal", "os", "sys", "hsmjwt", "hsmjwt.cli.quick"},
    "hsmjwt.cli.quick": {"os", "time"},
    "hsmjwt.cli.ends": {"_signal", "os"},
    "hsmjwt.cli.lighter": {"gc", "sys", "msgspec"},
}


def walk(tree: ast.AST, *, all_of_it: bool) -> Iterator[ast.AST]:
    """Yield the nodes of a tree; those that only a type checker or a call of a function comes to if `all_of_it`."""
    for node in ast.iter_child_nodes(tree):
        apart = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
            isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        )
        if all_of_it or not apart:
            yield node
            yield from walk(node, all_of_it=all_of_it)


def imports(tree: ast.AST, *, all_of_it: bool = True) -> set[str]:
    """Every module that is imported, by a text too, unless it is only what loading the file imports."""
    found: set[str] = set()
    nodes = list(walk(tree, all_of_it=all_of_it))
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{name.name}" for name in node.names}
            found |= (names & set(TREES)) | ({node.module or "."} if names - set(TREES) else set())
    if imports_by_text(tree):
        texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        found |= {text for text in texts if text in TREES or text.split(".")[0] in ONE_PLACE}
    return found


def imports_by_text(tree: ast.AST) -> bool:
    """Tell whether a file imports what a text names."""
    names: set[str] = set()
    for node in ast.walk(tree):
        names |= {value for field in ("id", "attr", "name") if isinstance(value := getattr(node, field, None), str)}
    return not names.isdisjoint({"import_module", "__import__", "runpy", "pkgutil"})


IMPORTS = {name: imports(tree) for name, tree in TREES.items()}


def within(name: str, *places: str) -> bool:
    """Tell whether a module is one of these, or in a package of them."""
    return any(name == f"hsmjwt.{place}" or name.startswith(f"hsmjwt.{place}.") for place in places)


@pytest.mark.parametrize("library", ONE_PLACE)
def test_a_library_is_imported_in_its_own_place_alone(library):
    users = {name for name, used in IMPORTS.items() if any(each.split(".")[0] == library for each in used)}
    assert users == {f"hsmjwt.{place}" for place in ONE_PLACE[library]}


def test_each_library_has_its_own_place():
    used = {each.split(".")[0] for used in IMPORTS.values() for each in used}
    assert used - set(sys.stdlib_module_names) - {"hsmjwt", "msgspec"} == set(ONE_PLACE)


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_a_part_stands_on_what_it_may_stand_on(part):
    """A file or a package; the version, which `hsmjwt` itself holds, is for everybody."""
    used = {each for name, used in IMPORTS.items() if within(name, part) for each in used}
    ours = {each for each in used if each.startswith("hsmjwt.") and not within(each, part)}
    assert {each for each in ours if not within(each, *MAY_IMPORT[part])} == set()
    assert {place for place in MAY_IMPORT[part] if not any(within(each, place) for each in ours)} == set()


def test_each_part_but_the_composition_root_says_what_it_stands_on():
    parts = {name.split(".")[1] for name in TREES if name != "hsmjwt"}
    assert parts == {*MAY_IMPORT, "compose"}
    composed = {each for name, used in IMPORTS.items() if within(name, "compose") for each in used}
    assert not any(within(each, "cli", "custody", "demo") for each in composed)


def test_what_is_imported_is_named_whole_and_where_it_is_imported():
    assert {name for name, tree in TREES.items() if imports_by_text(tree)} == {f"hsmjwt.{name}" for name in BY_TEXT}
    for name, tree in TREES.items():
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level], name


@pytest.mark.parametrize("name", ON_THE_WAY_IN)
def test_the_way_in_loads_next_to_nothing(name):
    assert imports(TREES[name], all_of_it=False) == ON_THE_WAY_IN[name]


def test_the_shortest_road_imports_nothing_later_either():
    types = {"collections.abc"}
    assert IMPORTS["hsmjwt.cli.quick"] - types == ON_THE_WAY_IN["hsmjwt.cli.quick"]


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
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name


def test_imports_stand_inside_functions_only_where_commands_are_put_together():
    for name, tree in TREES.items():
        if within(name, "cli", "compose"):
            continue
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                inner = [node for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)]
                assert not inner, (name, function.name)


def test_no_text_speaks_of_papers_that_the_project_does_not_have():
    there = {path.name for path in PACKAGE.parent.rglob("*.md") if ".venv" not in path.parts}
    for path in (*FILES, *(PACKAGE.parent / "tests").rglob("*.py")):
        named = set(re.findall(r"\b[\w-]+\.md\b", path.read_text()))
        assert named <= there, (path, named - there)
