"""The committed notebook keeps the promises that tests, report and slides rely on."""

import ast
import hashlib
import json
import re
import symtable
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "coloredmnist.ipynb"
FIGURES = ROOT / "figures"
CHINESE = re.compile(r"[\u3400-\u9fff]")

CONTRACT_NAMES = {
    "load_mnist",
    "make_environments",
    "Environment",
    "ColoredMNIST",
    "CNN",
    "backdoor_weights",
    "predict_do",
    "MemristorConfig",
    "to_memristive",
    "apply_device_faults",
    "fast_crossbars",
    "save_figure",
}


@pytest.fixture(scope="module")
def cells():
    """All cells of the committed notebook."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    return notebook.cells


@pytest.fixture(scope="module")
def code_cells(cells):
    """The code cells in order."""
    return [cell for cell in cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def results():
    """The numbers that the committed run wrote."""
    return json.loads((FIGURES / "results.json").read_text(encoding="utf-8"))


def tags(cell):
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def parse(cell):
    """The statements of a code cell, its shell and magic lines translated as IPython does."""
    return ast.parse(TransformerManager().transform_cell(cell.source))


def names_bound_by(statement):
    """The top-level names that a statement defines or assigns; imports do not count."""
    table = symtable.symtable(ast.unparse(statement), "<cell>", "exec")
    return {
        s.get_name() for s in table.get_symbols() if s.is_assigned() and not s.is_imported()
    } - {"_"}


def definitions(code_cells):
    """How many statements of the definitions cells bind each name."""
    return Counter(
        name
        for cell in code_cells
        if "definitions" in tags(cell)
        for statement in parse(cell).body
        for name in names_bound_by(statement)
    )


def sections(cells):
    """(heading, the paragraph under it) of every section."""
    for cell in cells:
        if cell.cell_type != "markdown":
            continue
        for match in re.finditer(r"^## +(.+)\n*((?:.+\n?)*)", cell.source, re.MULTILINE):
            yield match[1], match[2].strip()


# Executed


def test_executed_from_top_to_bottom(code_cells):
    """The execution counts are 1..n."""
    assert len(code_cells) > 20
    counts = [cell.execution_count for cell in code_cells]
    assert counts == list(range(1, len(code_cells) + 1))


def test_no_errors_and_no_warnings_in_the_outputs(code_cells):
    """No cell failed, and what reached stderr is at most a line or two that is no warning."""
    for cell in code_cells:
        assert not [o.ename for o in cell.outputs if o.output_type == "error"]
        stderr = "".join(
            o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stderr"
        )
        assert len(stderr.splitlines()) <= 2, stderr
        assert "Warning" not in stderr, stderr


def test_no_trace_of_the_machine_or_of_the_runner(cells):
    """No folder of the machine that ran it, no papermill metadata, no injected parameters."""
    text = json.dumps([cell.get("outputs", []) for cell in cells])
    assert not re.findall(r"(?<![\w.])/(?:home|root|Users|tmp|private|work|mnt|opt)/[\w./-]*", text)
    for cell in cells:
        assert "papermill" not in cell.metadata
        assert "injected-parameters" not in tags(cell)
    metadata = nbformat.read(NOTEBOOK, as_version=4).metadata
    assert "papermill" not in metadata
    assert metadata.kernelspec.name == "python3"


def test_smaller_than_two_megabytes():
    """The notebook opens quickly everywhere."""
    assert NOTEBOOK.stat().st_size < 2_000_000


def test_cells_fit_on_a_screen(code_cells):
    """No cell has more than 60 lines, docstrings included; blank lines and comments aside."""
    for number, cell in enumerate(code_cells, start=1):
        lines = [line.strip() for line in cell.source.splitlines()]
        count = sum(1 for line in lines if line and not line.startswith("#"))
        assert count <= 60, f"code cell {number} has {count} lines"


# Tags and names


def test_one_parameters_cell_with_the_full_profile(code_cells):
    """papermill finds one cell to override, and it says full."""
    (cell,) = [cell for cell in code_cells if "parameters" in tags(cell)]
    namespace = {}
    exec(compile(parse(cell), "<parameters>", "exec"), namespace)
    assert namespace["PROFILE"] == "full"


def test_only_the_known_tags(cells):
    """A misspelt tag would take a cell out of every check."""
    assert {tag for cell in cells for tag in tags(cell)} == {"parameters", "definitions"}


def test_contract_names_are_defined(code_cells):
    """The names that others rely on stand in definitions cells."""
    assert CONTRACT_NAMES - set(definitions(code_cells)) == set()


def test_every_name_is_defined_once(code_cells):
    """No definition is overwritten by a later one, nor by a cell that runs something."""
    defined = definitions(code_cells)
    assert [name for name, count in defined.items() if count > 1] == []
    for cell in code_cells:
        if "definitions" not in tags(cell):
            bound = {n for statement in parse(cell).body for n in names_bound_by(statement)}
            assert bound & set(defined) == set()


def test_untagged_cells_define_nothing(code_cells):
    """Functions and classes live in definitions cells only."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    for cell in code_cells:
        if "definitions" not in tags(cell):
            assert [n.name for n in ast.walk(parse(cell)) if isinstance(n, kinds)] == []


# Language


def test_one_chinese_sentence_under_every_section(cells):
    """Under each section's heading stands one Chinese sentence."""
    found = dict(sections(cells))
    assert len(found) >= 9
    for heading, paragraph in found.items():
        assert CHINESE.search(paragraph), f"no Chinese sentence under {heading!r}"
        assert len(re.findall("[。！？]", paragraph)) == 1, f"{heading!r}: {paragraph}"
        assert paragraph[-1] in "。！？", f"{heading!r}: {paragraph}"


def test_all_else_is_english(cells):
    """Chinese appears in those sentences and nowhere else."""
    allowed = {paragraph for _, paragraph in sections(cells)}
    for cell in cells:
        text = cell.source
        for paragraph in allowed:
            text = text.replace(paragraph, "")
        assert not CHINESE.search(text), text


# Files


def test_results_belong_to_this_notebook(code_cells, results):
    """The committed numbers were made by the committed code, with the full profile."""
    code = "\0".join(c.source for c in code_cells if "injected-parameters" not in tags(c))
    assert results["code_hash"] == hashlib.sha256(code.encode("utf-8")).hexdigest()
    assert results["profile"] == "full"


def test_steps_are_complete_and_consistent(results):
    """Every step has its accuracy, computed from the runs it lists."""
    ids = [step["id"] for step in results["steps"]]
    assert len(ids) == len(set(ids)) >= 6
    for step in results["steps"]:
        accuracy = step["accuracy"]
        assert step["title"] and step["test_set"]
        assert accuracy["n"] == len(accuracy["runs"]) >= 1
        assert all(0 <= run <= 1 for run in accuracy["runs"])
        assert accuracy["mean"] == pytest.approx(sum(accuracy["runs"]) / accuracy["n"], abs=1e-9)


def test_figures_come_in_pairs():
    """Each figure is there as PNG and as PDF, and none is empty."""
    png = {path.stem for path in FIGURES.glob("*.png")}
    assert png == {path.stem for path in FIGURES.glob("*.pdf")}
    assert "accuracy_of_every_step" in png
    for name in png:
        assert (FIGURES / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (FIGURES / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_memtorch_is_the_same_everywhere(code_cells):
    """make, the notebook's first cell and the comment in requirements.txt agree."""
    texts = {
        "Makefile": (ROOT / "Makefile").read_text(),
        "requirements.txt": (ROOT / "requirements.txt").read_text(),
        "first code cell": code_cells[0].source,
    }
    found = {name: set(re.findall(r"memtorch-cpu==[\w.]+", t)) for name, t in texts.items()}
    assert all(len(versions) == 1 for versions in found.values()), found
    assert len(set.union(*found.values())) == 1, found
    texts["Makefile"] = (ROOT / "tools" / "install.py").read_text()  # it gives pip the flags
    for name, text in texts.items():
        assert "--no-build-isolation" in text and "--no-deps" in text, name
