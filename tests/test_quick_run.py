"""The quick profile runs from start to end, in a copy of the project."""

import nbformat
import pytest
import torch

from tools.files import ROOT, read_json

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(quick):
    """What the quick run measured."""
    return read_json(quick / "figures" / "results.json")


def test_no_cell_has_an_error(quick):
    """Every code cell was executed, in order, without an error and without a warning."""
    notebook = nbformat.read(quick / "coloredmnist.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert [o.ename for o in outputs if o.output_type == "error"] == []
    stderr = [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    assert "Warning" not in "".join(stderr)


def keys_of(value, place=""):
    """Every place below dictionaries, the runs' number aside."""
    if not isinstance(value, dict):
        return {place}
    return {p for key, part in value.items() for p in keys_of(part, f"{place}/{key}")}


def test_same_results_as_the_full_run(results):
    """The quick run measures the same things and the same steps, and says that it is quick."""
    assert results["profile"] == "quick" and not results["resumed"]
    full = read_json(ROOT / "figures" / "results.json")
    assert keys_of(results) == keys_of(full)
    assert [s["id"] for s in results["steps"]] == [s["id"] for s in full["steps"]]
    assert results["code_hash"] == full["code_hash"]
    for step in results["steps"]:
        assert 0 <= step["accuracy"]["mean"] <= 1


def test_same_figures_as_the_full_run(quick):
    """Every figure is drawn, and none under another name."""
    full = {p.name for p in (ROOT / "figures").iterdir() if p.suffix in (".png", ".pdf")}
    drawn = {p.name for p in (quick / "figures").iterdir() if p.suffix in (".png", ".pdf")}
    assert drawn == full


def test_data_and_checkpoints_load_safely(quick):
    """The files hold tensors only."""
    files = [quick / "data" / "ColoredMNIST" / f"{e}.pt" for e in ("train1", "train2", "test")]
    files += (quick / "data" / "checkpoints").glob("*.pt")
    names = {path.name for path in files}
    assert {"backdoor.pt", "hardened.pt"} <= names
    for path in files:
        assert torch.load(path, weights_only=True)
