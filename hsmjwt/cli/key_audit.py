"""`hsmjwt key audit`: what the token says of a key, against a policy, for whoever has to vouch for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

from hsmjwt.cli import device as devices
from hsmjwt.cli.flags import Device, Flag, KeyArgument, Shared, command
from hsmjwt.cli.output import one_line
from hsmjwt.cli.run import Run
from hsmjwt.errors import PolicyError, UsageError
from hsmjwt.jose.claims import rfc3339

if TYPE_CHECKING:
    from hsmjwt.custody.auditing import KeyReport, Report
    from hsmjwt.jose.keys import PublicKey
    from hsmjwt.x509.attestation import Proof

_AUDIT = """Hold what the token says of a key against a policy.

A policy is device-born (the default), imported, fips-186-5, or a TOML file. The exit code is 8 where a rule is not
kept, and where the token does not tell what a rule asks for.

\b
Examples:
  hsmjwt key audit keys.adobe --policy fips-186-5 --json
  hsmjwt key audit --all --key 'pkcs11:token=prod' --html > audit.html
"""


@command(_AUDIT, "named", device=Device, shared=Shared)
def audit(
    run: Run,
    *,
    named: KeyArgument = None,
    policy: Annotated[
        str | None,
        Flag(
            "--policy",
            metavar="NAME|FILE",
            help="The policy (the key table's, else device-born).",
            completes=("device-born", "fips-186-5", "imported"),
        ),
    ] = None,
    every: Annotated[bool, Flag("--all", help="Audit every private key of the tokens that the URI leaves.")] = False,
    html: Annotated[bool, Flag("--html", help="Print the report as one page of HTML.")] = False,
    attestation: Annotated[
        str | None, Flag("--attestation", metavar="FILE", help="The vendor's proof: certificates, PEM or DER.")
    ] = None,
    roots: Annotated[
        str | None, Flag("--roots", metavar="FILE", help="The vendor's root certificates, PEM or DER.")
    ] = None,
    device: Device,
    shared: Shared,
) -> int:
    """Audit keys."""
    from hsmjwt.custody import auditing

    run.limit(shared.timeout)
    if html and shared.json:
        raise UsageError("--html and --json contradict each other", hint="leave one of them out")
    if (attestation is None) != (roots is None):
        raise UsageError(
            "--attestation and --roots belong together", hint="a proof is worth what the root is that it leads to"
        )
    if attestation is not None and every:
        raise UsageError("--attestation proves one key, and --all asks for many", hint="leave one of them out")
    prove = None if attestation is None or roots is None else _prover(run, attestation, roots)
    settings = devices.load_settings(shared)
    choice = devices.choose(run, settings, device, named=named, needed=not every)
    opened = devices.open_with(run, settings, device)
    report = run.wait(lambda: auditing.audit(opened, choice, policy=policy, every=every, prove=prove))
    if shared.json:
        rows = auditing.as_json(report)
        run.console.result_json(rows if every else rows[0])
    elif html:
        from hsmjwt.custody.report_html import page

        run.console.result(page(report).rstrip("\n"))
    else:
        run.console.result(
            "\n".join(map(one_line, _overview(report) if every else _in_full(report.keys[0], report.at)))
        )
    return 0 if report.passed else PolicyError.exit_code


def _prover(run: Run, attestation: str, roots: str) -> Callable[[PublicKey | None], Proof]:
    from hsmjwt.custody.attesting import prover

    return prover(devices.read_certificates(run, attestation), devices.read_certificates(run, roots))


def _in_full(key: KeyReport, at: float) -> list[str]:
    """Return the report of one key, a line each: what failed first."""
    from hsmjwt.custody import auditing
    from hsmjwt.guard.keypolicy import in_words

    stated = key.stated
    proof = [] if key.proof is None else [*key.proof.states, ("chain", " <- ".join(key.proof.chain) or "none")]
    return [
        f"key audit of {rfc3339(at)}, as stated by the module",
        "",
        *_pairs(
            [
                ("module", f"{stated['module_path']} ({stated['module_description']} {stated['module_version']})"),
                ("SHA-256", in_words(stated["module_sha256"])),
                ("token", _token(key)),
                ("key", key.uri),
                ("thumbprint", key.thumbprint or "unknown"),
                ("policy", f"{key.policy.name}: {key.policy.description}"),
            ]
        ),
        "",
        *_columns(
            [
                ("RESULT", "ATTRIBUTE", "FOUND", "REQUIRED", "WHY"),
                *((each.result, each.attribute, each.found, each.required, each.why) for each in key.worst_first),
            ]
        ),
        "",
        "what the module says of the key:",
        *_pairs(auditing.facts_in_words(key), "  "),
        "",
        f"proof: {key.attested}",
        *_pairs(proof, "  "),
        "",
        f"verdict: {_verdict(key)}",
    ]


def _overview(report: Report) -> list[str]:
    """Return the report of many keys: a line each, then what is wrong with those that failed."""
    from hsmjwt.custody import auditing
    from hsmjwt.guard.keypolicy import in_words

    rows = [("VERDICT", "POLICY", "NOT PASSED", "KEY")]
    wrong: list[str] = []
    for key in report.keys:
        missed = [finding for finding in key.findings if finding.result != "pass"]
        names = ", ".join(finding.attribute for finding in missed) or "-"
        rows.append(("pass" if key.passed else "fail", key.policy.name, names, key.uri))
        if missed:
            wrong += ["", key.uri]
            wrong += _columns(
                [(each.result, each.attribute, each.found, each.required, each.why) for each in missed], "  "
            )
    places = dict.fromkeys(
        (f"{key.stated['module_path']} (SHA-256 {in_words(key.stated['module_sha256'])})", _token(key))
        for key in report.keys
    )
    failed = sum(not key.passed for key in report.keys)
    return [
        f"key audit of {rfc3339(report.at)}, as stated by the module",
        "",
        *(line for module, token in places for line in _pairs([("module", module), ("token", token)])),
        "",
        *_columns(rows),
        *wrong,
        "",
        f"proof: {auditing.UNPROVEN}",
        "",
        f"verdict: {'pass' if report.passed else 'fail'} ({failed} of {len(report.keys)} keys did not pass)",
    ]


def _token(key: KeyReport) -> str:
    about = key.stated
    return (
        f"{about['token_label']} (serial {about['token_serial']}, "
        f"{about['token_manufacturer']} {about['token_model']}, "
        f"firmware {about['token_firmware']}, hardware {about['token_hardware']}; {', '.join(about['token_flags'])})"
    )


def _verdict(key: KeyReport) -> str:
    missed = sum(finding.result != "pass" for finding in key.findings)
    proof = "" if key.proof is None or key.proof.problem is None else ", and the proof does not hold"
    return f"{'pass' if key.passed else 'fail'} ({missed} of {len(key.findings)} findings did not pass{proof})"


def _pairs(rows: Sequence[tuple[str, str]], indent: str = "") -> list[str]:
    width = max((len(name) for name, _ in rows), default=0)
    return [f"{indent}{name:{width}}  {value}" for name, value in rows]


def _columns(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Return rows as lines whose columns stand below each other; none is cut."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [f"{indent}{line.rstrip()}" for line in lines]
