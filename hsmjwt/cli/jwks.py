"""`hsmjwt jwks`: the public halves of keys as a JWK set, and as the files of a static issuer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec

from hsmjwt.cli import device as devices
from hsmjwt.cli.flags import Device, Flag, Shared, Word, command
from hsmjwt.cli.run import Run
from hsmjwt.config import Settings
from hsmjwt.errors import UsageError
from hsmjwt.hsm.uri import SCHEME
from hsmjwt.oauth import issuer as issuers

_JWKS = """Print the public halves of keys as a JWK set (RFC 7517).

A KEY is a pkcs11: URI, keys.NAME or a profile of the config; without one it is every key of the config. Each goes by
the kid that its profile or --kid names, else by its thumbprint (RFC 7638). With --issuer and --out the set and a
discovery document beside it are written, for a web server to serve at the issuer's URL.

\b
Examples:
  hsmjwt jwks keys.adobe 'pkcs11:token=prod;object=next' > jwks.json
  hsmjwt jwks --issuer https://id.example.com --out public
"""
_NO_KEY = "KEY… names some; without one it is every key of the config, and that has none"


class _Word(NamedTuple):
    """A word that names a key, as `devices.choose` takes it, None for the environment's; and the kids it goes by."""

    named: str | None
    kids: tuple[str, ...] = ()

    @property
    def table(self) -> str | None:
        """Return the word where it is `keys.NAME`, as errors call it."""
        return self.named if self.named is not None and self.named.startswith("keys.") else None


@command(_JWKS, "*keys", device=Device, shared=Shared)
def jwks(
    run: Run,
    *,
    keys: Annotated[
        list[str] | None,
        Word("[KEY]...", "A pkcs11: URI, keys.NAME or a profile (the config's keys).", "published"),
    ] = None,
    issuer: Annotated[
        str | None, Flag("--issuer", metavar="URL", help="Write the files of this issuer, an https URL (with --out).")
    ] = None,
    out: Annotated[str | None, Flag("--out", metavar="DIR", help="The folder for them (with --issuer).")] = None,
    kid: Annotated[str | None, Flag("--kid", metavar="TEXT", help="The kid of the one key (its thumbprint).")] = None,
    device: Device,
    shared: Shared,
) -> None:
    """Publish keys."""
    run.limit(shared.timeout)
    if (issuer is None) != (out is None):
        given, absent = ("--issuer", "--out DIR") if out is None else ("--out", "--issuer URL")
        raise UsageError(f"{given} needs {absent} beside it", hint="without both the set goes to stdout")
    if issuer is not None:
        issuers.check_issuer(issuer)
    settings = devices.load_settings(shared)
    words = _words(settings, [*(keys or ()), *([] if device.key is None else [device.key])])
    if kid is not None:
        if len(words) != 1:
            raise UsageError(f"--kid names one key, and there are {len(words)}", hint="a profile's kid names its key")
        words = [words[0]._replace(kids=(kid,))]
    made = _made(run, settings, device, words)
    if issuer is None or out is None:
        run.console.result_json(made.keys)
        return
    _write(run, made.algs, made.keys, issuer, out, json_too=shared.json)


def _made(run: Run, settings: Settings, device: Device, words: Sequence[_Word]) -> Any:
    """Read the keys; returns a hsmjwt.custody.publishing.Published."""
    from hsmjwt.custody import publishing

    alone = msgspec.structs.replace(device, key=None)
    wanted = [
        publishing.Wanted(devices.choose(run, settings, alone, named=word.named), word.kids, word.table)
        for word in words
    ]
    opened = devices.open_with(run, settings, device)
    return run.wait(lambda: publishing.publish(opened, wanted))


def _write(run: Run, algs: Sequence[str], keys: dict[str, Any], issuer: str, out: str, *, json_too: bool) -> None:
    from hsmjwt.custody import static_files

    document = issuers.configuration(issuer, algs)
    files = {
        issuers.KEYS_FILE: static_files.as_json(keys),
        issuers.CONFIGURATION_FILE: static_files.as_json(document),
    }
    written = run.wait(lambda: static_files.publish(out, lambda: files, run.deadline))
    if issuers.MANDATORY_ALG not in algs:
        run.console.warn(
            f"warning: no key of the set is for {issuers.MANDATORY_ALG}, which OpenID Connect Discovery 1.0 asks of "
            "every issuer (section 3): some verifiers will not take it"
        )
    if json_too:
        run.console.result_json({"issuer": issuer, "jwks_uri": document["jwks_uri"], "files": written})
    else:
        run.console.result("\n".join(written))


def _words(settings: Settings, given: Sequence[str]) -> list[_Word]:
    """Return what each word names, every key of the config where there is none; raises ConfigError and UsageError."""
    if given:
        return [_word(settings, text) for text in given]
    if settings.keys:
        profiles = settings.profiles.values()
        return [
            _Word(f"keys.{name}", tuple(sorted({each.kid for each in profiles if each.key == name and each.kid})))
            for name in settings.keys
        ]
    if os.environ.get("HSMJWT_KEY"):
        return [_Word(None)]
    raise UsageError("no key is named", hint=_NO_KEY)


def _word(settings: Settings, text: str) -> _Word:
    if text.startswith("keys.") or text.lower().startswith(SCHEME):
        return _Word(text)
    profile = settings.profile(text)
    named = None if profile.key is None else f"keys.{profile.key}"
    return _Word(named, () if profile.kid is None else (profile.kid,))


VERBS = {"jwks": jwks}
