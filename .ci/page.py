"""Render coloredmnist.ipynb as one page that fetches nothing: build/coloredmnist.html.

Started by `make html`, with .venv's Python. Formulas become MathML, which browsers draw themselves;
pictures and styles are inside the page.
"""

import html
import re
from pathlib import Path

import nbformat
from files import replacing
from latex2mathml.converter import convert
from nbconvert import HTMLExporter

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "build" / "coloredmnist.html"
TITLE = "Colored MNIST, causal and memristive"
# Code is left alone; then displayed and inline formulas, not preceded by a backslash.
FORMULA = re.compile(r"```.*?```|`[^`\n]*`|\$\$(.+?)\$\$|(?<!\\)\$([^$\n]+?)\$", re.DOTALL)
DRAWN = re.compile(r'def (draw_\w+)\(.*?\):\n\s+"""(.*?)(?:\.\s|; `|: `|\.?""")', re.DOTALL)
NO_TEXT = 'alt="No description has been provided for this image"'
STYLE = """<style>
body { max-width: 62rem; margin: 0 auto; padding: 0 1rem; }
img { max-width: 100%; height: auto; }
.jp-RenderedHTMLCommon table { display: block; overflow-x: auto; max-width: 100%; }
.jp-InputPrompt, .jp-OutputPrompt { display: none !important; }
pre { overflow-x: auto; }
math { font-size: 1.08em; }
math[display="block"] { overflow-x: auto; padding: 0.5rem 0; }
</style>"""


def with_mathml(markdown):
    """Markdown with its formulas as MathML."""

    def drawn(match):
        displayed, inline = match.groups()
        if displayed is None and inline is None:
            return match[0]
        tex = (displayed or inline).replace(r"\|", "|")  # escaped in tables
        mathml = convert(" ".join(tex.split()), display="block" if displayed else "inline")
        return mathml.replace("\n", "")

    return FORMULA.sub(drawn, markdown)


def descriptions(notebook):
    """What each figure shows, in order: the first sentence of what draws it."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    says = dict(DRAWN.findall("\n".join(cell.source for cell in code)))
    texts = []
    for cell in code:
        pictures = sum("image/png" in output.get("data", {}) for output in cell.outputs)
        names = [name for name in re.findall(r"draw_\w+", cell.source) if name in says]
        texts += [" ".join(says[names[-1]].split()) if names else TITLE] * pictures
    return texts


def rendered(notebook):
    """The notebook as HTML that refers to nothing outside itself."""
    texts = descriptions(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = with_mathml(cell.source)
        for output in cell.get("outputs", []):
            if "text/markdown" in output.get("data", {}):
                output.data["text/markdown"] = with_mathml(output.data["text/markdown"])
    page, _ = HTMLExporter(template_name="lab").from_notebook_node(notebook)
    page = re.sub(r"<script[^>]*\bsrc=[^>]*>\s*</script>", "", page)  # require.js, MathJax
    page = re.sub(r'<script type="module">.*?</script>', "", page, flags=re.DOTALL)  # mermaid
    page = re.sub(r"<title>.*?</title>", f"<title>{TITLE}</title>", page, count=1)
    for text in texts:
        page = page.replace(NO_TEXT, f'alt="{html.escape(text)}"', 1)
    return page.replace("</head>", STYLE + "</head>", 1)


def main():
    """Write the page."""
    notebook = nbformat.read(ROOT / "coloredmnist.ipynb", as_version=4)
    PAGE.parent.mkdir(exist_ok=True)
    with replacing(PAGE) as temporary:
        temporary.write_text(rendered(notebook), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {PAGE.stat().st_size / 1e6:.1f} MB, complete in itself")


if __name__ == "__main__":
    main()
