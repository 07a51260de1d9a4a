"""Values together with who named them, which decides the error that a fault in one becomes."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from hsmjwt.errors import HsmjwtError, UsageError
from hsmjwt.toml_tables import Source, dotted

Level = Literal["flag", "profile", "key table", "environment", "provider", "default"]


class Origin(NamedTuple):
    """Who named a value: a flag, whose faults are exit 2; a key of the config, exit 3; a provider's file; or nobody.

    `label` is how messages call it, `key` its place in the config. What stands in the environment is read where the key
    is chosen, and its faults are told there.
    """

    level: Level
    label: str
    source: Source | None = None
    key: tuple[str, ...] = ()

    @property
    def by(self) -> str:
        """Return who named the value as a list shows it, such as `--iss` or `[profiles.adobe] client_id`."""
        *table, key = self.key or (self.label,)
        if table:
            return f"[{dotted(tuple(table))}] {dotted((key,))}"
        return f"provider {key}" if self.level == "provider" else key

    def fault(self, problem: str, *, hint: str | None = None) -> HsmjwtError:
        """Return the error for what is wrong with the value."""
        if self.source is not None:
            return self.source.fault(self.key, f"{self.label}: {problem}", hint=hint)
        return UsageError(f"{self.label}: {problem}", hint=hint)


class Named(NamedTuple):
    """A value and its origin."""

    value: Any
    origin: Origin


class Names(dict[str, Named]):
    """Values of one level by name, each named once: a second one is refused, whichever was meant."""

    def __init__(self, noun: str) -> None:
        super().__init__()
        self._noun = noun

    def name(self, name: str, value: object, origin: Origin) -> None:
        """Keep a value. Raises the origin's error where the level has named it before."""
        if name in self:
            other = self[name].origin
            by = f"{other.label} and {origin.label}" if other.label != origin.label else f"{origin.label}, both times"
            raise origin.fault(f"the {self._noun} {name!r} is given twice, by {by}", hint="leave one of them out")
        self[name] = Named(value, origin)


def flag(label: str) -> Origin:
    """Return the origin of a flag."""
    return Origin("flag", label)


DEFAULT = Origin("default", "default")
