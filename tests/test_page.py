"""The page that `make html` renders: complete in itself, formulas drawn, every figure described."""

import base64
import re
import urllib.parse

import nbformat
import pytest
from bs4 import BeautifulSoup

from tools import page as script
from tools.files import NOTEBOOK

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def notebook():
    """The committed notebook."""
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def page(notebook):
    """The page rendered from it."""
    return script.rendered(nbformat.from_dict(notebook))


def texts_of_pictures(page):
    """The alternative texts in a page, in order."""
    return [picture["alt"] for picture in BeautifulSoup(page, "html.parser").find_all("img")]


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
    assert page.count("<math") > 20
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


def test_every_figure_is_described(page):
    """By words of its own."""
    texts = texts_of_pictures(page)
    assert len(set(texts)) == len(texts) == page.count("<img") > 5
    assert all(10 < len(text) < 500 and "`" not in text[-2:] for text in texts)
    assert not [text for text in texts if text == script.TITLE or "No description" in text]


def test_folded_code_is_folded_and_descriptions_are_kept():
    """Code that JupyterLab folds opens under its first comment; other code is open; a picture's
    own text stays."""
    v4, dot = nbformat.v4, base64.b64encode(b"png").decode()
    picture = v4.new_output("display_data", {"image/png": dot})
    picture.metadata["image/png"] = {"alt": 'a "dot"'}
    hidden = {"jupyter": {"source_hidden": True}}
    cells = [
        v4.new_code_cell("# What <it> defines\nfirst = 1", metadata=hidden),
        v4.new_code_cell("second = 2", outputs=[picture]),
    ]
    made = script.rendered(v4.new_notebook(cells=cells))
    (folded,) = re.findall("<details.*?</details>", made, re.DOTALL)
    assert "<summary>What &lt;it&gt; defines</summary>" in folded and "first" in folded
    assert "second" in made and "second" not in folded
    assert texts_of_pictures(made) == ['a "dot"']


def test_contents_lead_somewhere(page):
    """Every anchor has its heading."""
    targets = {urllib.parse.unquote(t) for t in re.findall(r'href="#([^"]+)"', page)}
    places = {urllib.parse.unquote(t) for t in re.findall(r'\bid="([^"]+)"', page)}
    assert len(targets) > 10 and targets <= places
