"""The page that `make html` renders: complete in itself, formulas drawn, every figure described."""

import re
import urllib.parse
from pathlib import Path

import nbformat
import page as script
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def notebook():
    """The committed notebook."""
    return nbformat.read(ROOT / "coloredmnist.ipynb", as_version=4)


@pytest.fixture(scope="module")
def page(notebook):
    """The page rendered from it."""
    return script.rendered(nbformat.from_dict(notebook))


def test_nothing_is_fetched(page):
    """No script, style, picture or font from elsewhere."""
    sources = re.findall(r"<(?:script|img|iframe)[^>]*\bsrc=[\"']?([^\"' >]*)", page)
    assert [source for source in sources if not source.startswith("data:")] == []
    scripts = re.findall(r"<script.*?</script>", page, re.DOTALL)
    assert [script for script in scripts if "http" in script] == []
    addresses = re.findall(r"url\([\"']?([^\"')]*)", page)
    assert [a for a in addresses if not a.startswith(("data:", "#"))] == []
    assert re.findall(r"<link[^>]*>|@import", page) == []


def test_formulas_are_drawn(page):
    """As MathML, none left as TeX, but for what is code."""
    assert page.count("<math") > 50
    text = re.sub(
        r"<pre.*?</pre>|<code.*?</code>|<script.*?</script>|<style.*?</style>", "", page, flags=re.S
    )
    assert re.findall(r"\$[^$\n]{1,60}\$", text) == []
    assert re.findall(r"\\(?:sum|frac|boxed|mathit|text)\b", text) == []


def test_code_keeps_its_dollars():
    """Formulas in text, not in code; escaped dollars are dollars."""
    assert script.with_mathml("`$x$` and ```\n$y$\n```") == "`$x$` and ```\n$y$\n```"
    assert script.with_mathml(r"costs \$5 or \$6") == r"costs \$5 or \$6"
    assert "<math" in script.with_mathml("so $x_1$ is") and "$" not in script.with_mathml("$$a$$")


def test_every_figure_is_described(page, notebook):
    """By words of its own, not by the placeholder."""
    texts = script.descriptions(notebook)
    assert script.NO_TEXT not in page
    assert len(texts) == page.count("<img") and len(set(texts)) == len(texts) > 20
    assert all(10 < len(text) < 200 and "`" not in text[-2:] for text in texts)


def test_contents_lead_somewhere(page):
    """Every anchor has its heading."""
    targets = {urllib.parse.unquote(t) for t in re.findall(r'href="#([^"]+)"', page)}
    places = {urllib.parse.unquote(t) for t in re.findall(r'\bid="([^"]+)"', page)}
    assert len(targets) > 10 and targets <= places
