"""What the configuration says of a key that is to come, to go or to be written over: who needs it, what it may."""

from __future__ import annotations

from typing import NamedTuple

from hsmjwt.config import KeyTable, Settings
from hsmjwt.guard.policy import bound_to, check_alg, refused
from hsmjwt.keyrules import KeyRules, bounds, named_first, rules_of


class Dependents(NamedTuple):
    """The names of the key tables that mean a key, and of the profiles that sign with it."""

    tables: tuple[str, ...]
    profiles: tuple[str, ...]


def bound_algs(settings: Settings, tables: list[KeyTable], asked: str | None, named: KeyRules) -> tuple[str, ...]:
    """Return the algorithms that a new key is for: the one that is asked for, else those that its key tables list.

    None where neither says. `named` is what the key table says that was named, whether it means the key or not. Raises
    PolicyError where the tables bind the key to others.
    """
    limits = bounds(named_first(named, [rules_of(settings, table) for table in tables]))
    if asked is None:
        return bound_to(limits)
    check_alg(limits, asked)
    return (asked,)


def refuse_protected(tables: list[KeyTable], uri: str, what: str, *, of: str = "key") -> None:
    """Raise PolicyError where one of a key's tables says that it is protected.

    `what` is what may not be done to what the URI selects, `of` whether that is the key or its certificate.
    """
    for table in tables:
        if table.protected:
            raise refused(
                "protected",
                f"[keys.{table.name}] says that the {of} {uri} may not be {what}",
                hint="whoever means it takes protected = true out of that table first; nothing was changed",
            )


def dependents(settings: Settings, tables: list[KeyTable]) -> Dependents:
    """Return who needs the key that these tables mean."""
    names = [table.name for table in tables]
    users = [profile.name for profile in settings.profiles.values() if profile.key in names]
    return Dependents(tuple(names), tuple(users))
