"""The report of an audit as one page of HTML, which needs nothing beside itself and can be printed.

Labels and the like come from a token that anybody may have written to: every text goes through `html.escape`.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Final

from hsmjwt.custody import auditing
from hsmjwt.custody.auditing import KeyReport, Report
from hsmjwt.guard.keypolicy import in_words
from hsmjwt.jose.claims import rfc3339

_STYLE: Final = """
:root { color-scheme: light; }
body { font: 11pt/1.45 system-ui, "Liberation Sans", Arial, sans-serif; color: #1a1a1a; background: #fff;
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p.stated { margin: .2rem 0 1rem; color: #444; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { border: 1px solid #999; padding: .3rem .5rem; text-align: left; vertical-align: top;
  overflow-wrap: anywhere; }
thead th, .findings td:nth-child(-n+2) { overflow-wrap: normal; }
thead th { background: #eee; }
tbody th { font-weight: 600; width: 11rem; background: #f7f7f7; }
.verdict { font-size: 1.1rem; font-weight: 700; border: 2px solid; padding: .4rem .8rem; display: inline-block; }
.pass { color: #14532d; }
.fail, .unknown { color: #991b1b; }
td span { font-weight: 700; }
@page { size: A4; margin: 15mm; }
@media print {
  body { max-width: none; margin: 0; padding: 0; font-size: 9.5pt; }
  thead { display: table-header-group; }
  tr { break-inside: avoid; }
  h2, h3, caption { break-after: avoid; }
  section + section { break-before: page; }
  th, td, .verdict { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
""".strip()

_HEAD: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
"""


def page(report: Report) -> str:
    """Return the page; what a token says is text there, whatever it looks like."""
    keys = report.keys
    name = "Key audit" if len(keys) != 1 else f"Key audit: {keys[0].label or keys[0].uri}"
    parts = [
        _HEAD.format(title=_text(name), style=_STYLE),
        "<header>\n<h1>Key audit, as stated by the module</h1>\n",
        f'<p class="stated">Made on <time>{_text(rfc3339(report.at))}</time>. What a module says of a key cannot be ',
        "checked through the module; only a proof that the device signed could show it to be true.</p>\n",
    ]
    if len(keys) != 1:
        failed = sum(not key.passed for key in keys)
        parts.append(_verdict(passed=report.passed, more=f"{failed} of {len(keys)} keys did not pass"))
    parts.append("</header>\n<main>\n")
    if len(keys) != 1:
        rows = [(_result("pass" if key.passed else "fail"), _text(key.policy.name), _text(key.uri)) for key in keys]
        parts.append(_table("All keys", ("Verdict", "Policy", "Key"), rows))
    parts += map(_section, keys)
    parts.append("</main>\n</body>\n</html>\n")
    return "".join(parts)


def _section(key: KeyReport) -> str:
    stated = key.stated
    about = [
        ("Key", key.uri),
        ("Thumbprint (RFC 7638)", key.thumbprint or "unknown"),
        ("Token", f"{stated['token_label']}, serial {stated['token_serial']}"),
        ("Model", f"{stated['token_manufacturer']} {stated['token_model']}"),
        ("Firmware, hardware", f"{stated['token_firmware']}, {stated['token_hardware']}"),
        ("Flags", in_words(stated["token_flags"])),
        ("Module", f"{stated['module_path']} ({stated['module_description']} {stated['module_version']})"),
        ("SHA-256 of the module", in_words(stated["module_sha256"])),
        ("Policy", f"{key.policy.name}: {key.policy.description}"),
    ]
    proof = [("Proof", key.attested)]
    if key.proof is not None:
        proof += [("Chain", " ← ".join(key.proof.chain) or "none"), *key.proof.states]
    heads = ("Result", "Attribute", "Found", "Required", "Why it matters")
    rows = [
        (_result(each.result), _text(each.attribute), _text(each.found), _text(each.required), _text(each.why))
        for each in key.worst_first
    ]
    return "".join(
        (
            f"<section>\n<h2>{_text(key.label or key.uri)}</h2>\n",
            _verdict(passed=key.passed, more=f"policy {key.policy.name}"),
            _pairs("Key, token and module", about),
            _table("Findings", heads, rows),
            _pairs("Cryptographic proof", proof),
            _pairs("What the module says of the key", auditing.facts_in_words(key)),
            "</section>\n",
        )
    )


def _verdict(*, passed: bool, more: str) -> str:
    word = "pass" if passed else "fail"
    return f'<p class="verdict {word}">Verdict: {word} ({_text(more)})</p>\n'


def _table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are HTML already."""
    top = "".join(f'<th scope="col">{_text(head)}</th>' for head in heads)
    body = "".join("<tr>{}</tr>\n".format("".join(f"<td>{cell}</td>" for cell in row)) for row in rows)
    title = f"<caption>{_text(caption)}</caption>"
    return f'<table class="findings">\n{title}\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n'


def _pairs(caption: str, rows: Iterable[tuple[str, str]]) -> str:
    body = "".join(f'<tr><th scope="row">{_text(name)}</th><td>{_text(value)}</td></tr>\n' for name, value in rows)
    return f"<table>\n<caption>{_text(caption)}</caption>\n<tbody>\n{body}</tbody>\n</table>\n"


def _result(result: str) -> str:
    return f'<span class="{_text(result)}">{_text(result)}</span>'


def _text(text: str) -> str:
    """Return text as HTML; control characters and what is no UTF-8 as escapes, so that nothing hides or is lost."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
    return html.escape(shown)
