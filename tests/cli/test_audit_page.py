"""`hsmjwt key audit --html`: one page that needs nothing else, believes no label, and can be read in print."""

from __future__ import annotations

import html.parser
import re
import shutil
import subprocess

import pytest

HOSTILE = "<script>document.title='owned'</script>\"'><img src=x onerror=alert(1)>&amp;"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(html.parser.HTMLParser):
    """A page as a browser takes it apart: tags with attributes, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        for tag in self.open:
            self.texts.setdefault(tag, []).append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="session")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("chromium is not installed: bash script/check installs it")
    return found


@pytest.fixture
def headless(browser, tmp_path):
    def run(*args: str) -> str:
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", profile, *args]
        done = subprocess.run(command, capture_output=True, timeout=120, check=True, text=True)
        return done.stdout

    return run


def page_of(quick, *args: str, code: int = 0) -> str:
    done = quick("key", "audit", "--html", *args)
    assert (done.code, done.err) == (code, "")
    return done.out


def test_the_page_stands_alone_and_says_what_the_text_says(quick, token):
    text = page_of(quick, token.uri)
    page = Page(text)
    assert page.open == []
    assert page.named("html") == [{"lang": "en"}]
    assert page.texts["title"] == ["Key audit: k1"]
    assert page.texts["h1"] == ["Key audit, as stated by the module"]
    names = {tag for tag, _ in page.tags}
    assert names.isdisjoint({"script", "link", "img", "iframe", "object", "a", "form", "base"})
    assert not any(name in attrs for _, attrs in page.tags for name in ("src", "href", "onload", "style"))
    assert not re.search(r"url\(|@import|https?:", text)
    assert all(attrs.get("scope") in ("col", "row") for attrs in page.named("th"))
    assert len(page.texts["caption"]) == len(page.named("table"))
    assert "Verdict: pass" in page.text
    assert "no cryptographic proof is available" in page.text
    for finding in ("never_extractable", "key_gen_mechanism", "RSA_PKCS_KEY_PAIR_GEN"):
        assert finding in page.text


def test_what_a_token_says_is_text_whatever_it_looks_like(quick, token):
    token.make_key(HOSTILE, "0b", EXTRACTABLE=True)
    for args in (("pkcs11:token=t1;id=%0B",), ("--all", "--key", "pkcs11:token=t1")):
        page = Page(page_of(quick, *args, code=8))
        assert page.open == []
        assert not page.named("script")
        assert not page.named("img")
        assert HOSTILE in "".join(page.texts["h2"])
        assert "Verdict: fail" in page.text


def test_every_key_has_a_section_and_a_line(quick, token):
    token.make_key("k2", "02", EXTRACTABLE=True)
    page = Page(page_of(quick, "--all", "--key", "pkcs11:token=t1", code=8))
    assert page.texts["h2"] == ["k1", "k2"]
    assert "1 of 2 keys did not pass" in page.text
    assert page.texts["caption"][0] == "All keys"


def test_a_browser_shows_the_verdict_and_runs_nothing_that_a_label_brings(quick, token, headless, tmp_path):
    token.make_key(HOSTILE, "0b", EXTRACTABLE=True)
    path = tmp_path / "audit.html"
    path.write_text(page_of(quick, "pkcs11:token=t1;id=%0B", code=8))
    page = Page(headless("--dump-dom", path.as_uri()))
    assert page.texts["title"] == [f"Key audit: {HOSTILE}"]  # and not what the label would have made of it
    assert not page.named("script")
    assert "Verdict: fail" in page.text
    assert "never_extractable" in page.text


_MEASURE = """
<script>
addEventListener("load", () => {
  const wide = [...document.querySelectorAll("body *")].filter(
    each => each.getBoundingClientRect().right > document.documentElement.clientWidth + 1 ||
            each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).display !== "inline");
  document.title = "width " + document.documentElement.clientWidth + " cut " + wide.map(each => each.tagName).join(",");
});
</script>
"""


def test_no_text_is_cut_on_paper(quick, token, headless, tmp_path):
    """The rules for print, on a page as wide as A4 between its margins (180 mm at 96 dots an inch)."""
    label = "a_label_without_any_place_to_break_it" * 6
    token.make_key(label, "0c")
    text = page_of(quick, "--all", "--key", "pkcs11:token=t1")
    assert "@media print" in text
    page = text.replace("@media print", "@media all").replace("default-src 'none';", "script-src 'unsafe-inline';")
    path = tmp_path / "paper.html"
    path.write_text(page.replace("</body>", f"{_MEASURE}</body>"))
    shown = Page(headless("--window-size=680,900", "--virtual-time-budget=2000", "--dump-dom", path.as_uri()))
    assert re.fullmatch(r"width \d+ cut ", "".join(shown.texts["title"])), shown.texts["title"]


def test_the_page_is_printed_with_all_its_text(quick, token, headless, tmp_path):
    path, printed = tmp_path / "audit.html", tmp_path / "audit.pdf"
    token.make_key("k2", "02", EXTRACTABLE=True)
    path.write_text(page_of(quick, "--all", "--key", "pkcs11:token=t1", code=8))
    headless("--no-pdf-header-footer", f"--print-to-pdf={printed}", path.as_uri())
    data = printed.read_bytes()
    assert data.startswith(b"%PDF-")
    pages = max(int(count) for count in re.findall(rb"/Count (\d+)", data))
    assert pages >= 3  # the overview, and each key on a page of its own
    assert re.search(rb"/Lang ?\(en\)", data)
    sizes = {
        tuple(round(float(size)) for size in box) for box in re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", data)
    }
    assert sizes == {(595, 842)}  # A4 in points
