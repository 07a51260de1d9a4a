"""`hsmjwt provider`: the built-in providers, and what each gives and demands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from hsmjwt.cli.flags import Group, Plain, Word, command
from hsmjwt.cli.run import Run
from hsmjwt.guard.policy import DEFAULT_MAX_LIFE
from hsmjwt.oauth import provider as providers
from hsmjwt.oauth.provider import Provider

_LIST = """List the built-in providers.

\b
Examples:
  hsmjwt provider list
  hsmjwt provider list --json
"""
_SHOW = """Show what a provider gives and demands.

A default gives way to the profile and to flags. What breaks a rule is refused before anything is signed.

\b
Examples:
  hsmjwt provider show adobe-analytics
  hsmjwt provider show generic --json
"""
_IN_WORDS = {
    "named": "to be named",
    "client-id": "the client id, which is a form field as well",
    "issuer": "the issuer",
    "token-url": "the token URL",
}


@command(_LIST, plain=Plain)
def list_providers(run: Run, *, plain: Plain) -> None:
    """List providers."""
    run.limit(plain.timeout)
    found = [providers.load(name) for name in providers.names()]
    if plain.json:
        names = ("name", "title", "grants", "algs", "retired")
        run.console.result_json([{name: _plain(getattr(each, name)) for name in names} for each in found])
        return
    run.console.table(
        ("PROVIDER", "GRANTS", "ALGORITHMS", "STATE", "TITLE"),
        [
            (each.name, ", ".join(each.grants), ", ".join(each.algs) or "any", _state(each), each.title)
            for each in found
        ],
    )


def _state(provider: Provider) -> str:
    return "live" if provider.retired is None else "retired"


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


@command(_SHOW, "name", plain=Plain)
def show(run: Run, *, name: Annotated[str, Word("NAME", "A built-in provider.", "providers")], plain: Plain) -> None:
    """Show a provider."""
    run.limit(plain.timeout)
    provider = providers.load(name)
    if plain.json:
        members: dict[str, Any] = msgspec.to_builtins(provider)
        run.console.result_json({**members, "values": []})
        return
    run.console.table(("SETTING", "DEFAULT", "RULE"), _rows(provider))


def _rows(provider: Provider) -> list[tuple[str, str, str]]:
    audience = _IN_WORDS.get(provider.audience, "the environment's")
    life = f"{DEFAULT_MAX_LIFE}s at most" if provider.max_lifetime is None else f"{provider.max_lifetime}s at most"
    rows = [
        ("provider", provider.title, "-"),
        *([] if provider.retired is None else [("retired", provider.retired, "-")]),
        ("grant", provider.grants[0], _alone(provider.grants)),
        ("alg", provider.algs[0] if len(provider.algs) == 1 else "the key's", _alone(provider.algs)),
        ("issuer", _IN_WORDS[provider.issuer], "-"),
        ("subject", _IN_WORDS[provider.subject], "-"),
        ("audience", audience, "no other" if provider.audience == "fixed" else "-"),
        ("lifetime", f"{provider.lifetime}s", life),
        ("jti", provider.jti, "-"),
        *((f"typ with {grant}", typ, "-") for grant, typ in provider.typ.items()),
        ("environment", next(iter(provider.environments), "-"), _alone(list(provider.environments))),
    ]
    for name, each in provider.environments.items():
        rows.append((f"token_url of {name}", each.token_url, "-"))
        if each.audience is not None:
            rows.append((f"audience of {name}", each.audience, "-"))
    rows.append(("own keys", "none", "-"))  # which a profile of this provider has, and no other
    return rows


def _alone(values: Sequence[str]) -> str:
    return f"only {' or '.join(values)}" if values else "-"


VERBS = {"provider": Group("The built-in providers.", {"list": list_providers, "show": show})}
