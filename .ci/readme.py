"""Write the measured numbers into README.md, from figures/results.json and figures/bench.json.

Everything between `<!-- results:NAME -->` and `<!-- /results -->` is made here; see BLOCKS.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from bench import BUDGETS, SIZES
from files import replacing

BLOCK = re.compile(
    r"(<!-- results:(?P<name>[\w-]+) -->\n)(?P<body>.*?)(<!-- /results -->)", re.DOTALL
)


def table(header, rows):
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def accuracy(value):
    """Return `mean ± sd (n)`; a single measurement has no spread."""
    spread = f" ± {value['sd']:.4f}" if value["n"] > 1 else ""
    return f"{value['mean']:.4f}{spread} ({value['n']})"


def seconds(value):
    """Return a time for a reader."""
    return "not measured yet" if value is None else f"{value:.0f} s"


def megabytes(value):
    """Return a size for a reader."""
    return "not measured yet" if value is None else f"{value / 1e6:,.0f} MB"


def steps(results, bench):
    """The accuracy of every step, in the notebook's order."""
    if not results:
        return "No results yet: `make run` writes them."
    rows = [[s["title"], s["test_set"], accuracy(s["accuracy"])] for s in results["steps"]]
    ceiling = results["ceiling"]["test"]
    return (
        table(["step", "test set", "accuracy: mean ± sd (runs)"], rows)
        + f"\n\nProfile: {results['profile']}. The label noise allows {ceiling:.4f} on the test"
        " environment; a coin gets one half."
    )


def methods(results, bench):
    """Every method on the test: what it is told, plain and averaged over recolourings."""
    if not results:
        return "No results yet: `make run` writes them."
    rows = []
    for method in results["methods"]:
        measured = results["software"][method["id"]]
        numbers = [accuracy(measured[key]) for key in ("accuracy", "accuracy_do")]
        rows.append([method["title"], method["told"], *numbers])
    best, ceiling = results["best_rung"]["rung"], results["ceiling"]["test"]
    best = next(rung for rung in results["ladder"] if rung["rung"] == best)
    return (
        table(["method", "is told", "test, e = .9", "averaged over colours"], rows)
        + f"\n\nThe headline network reaches {results['share_of_ceiling']:.2%} of what the label"
        f" noise allows. The best rung of the ladder ({best['title'].removeprefix('+ ')}) reaches"
        f" {best['test']['mean'] / ceiling:.2%}, and {best['test_do']['mean'] / ceiling:.2%}"
        f" averaged over colours as well: {accuracy(best['test_do'])}."
    )


def cures(results, bench):
    """Points of accuracy that chips lose, by cure and by fault."""
    if not results:
        return "No results yet: `make run` writes them."
    rows = results["points_lost"]
    faults = list(next(iter(rows.values())))

    def points(lost):
        mean = f"{round(lost['mean'], 2) + 0:.2f}"  # no -0.00
        return mean if lost["n"] == 1 else f"{mean} ± {lost['sd']:.2f}"

    lines = [[cure, *(points(row[fault]) for fault in faults)] for cure, row in rows.items()]
    return table(["cure", *faults], lines)


def times(results, bench):
    """What takes how long, beside what it may take."""
    bench = bench or {}
    budgets = BUDGETS | SIZES | bench.get("budgets", {})
    full = seconds(bench.get("full_seconds"))
    if results and bench.get("full_code_hash") not in (None, results["code_hash"]):
        full += ", an earlier version"
    rows = [
        ["`make install`", seconds(bench.get("install_seconds")), seconds(budgets["install"])],
        [
            "`make run PROFILE=quick`",
            seconds(bench.get("quick_seconds")),
            seconds(budgets["quick"]),
        ],
        ["`make run`", full, seconds(budgets["full"])],
        ["memory of the quick run", megabytes(bench.get("memory")), megabytes(budgets["memory"])],
        [
            "memory of `make run`",
            megabytes(bench.get("full_memory")),
            megabytes(budgets["full_memory"]),
        ],
        ["checkout", megabytes(bench.get("checkout")), megabytes(budgets["checkout"])],
    ]
    text = table(["command", "measured", "budget"], rows)
    if bench:
        text += f"\n\nMeasured on {bench['date']}, {bench['cpu_count']} cores."
    if one := bench.get("one_thread"):
        text += (
            f"\n\nWith one thread in every library instead of {bench['cpu_count']}, {one['differ']}"
            f" of the {one['values']:,} values of a quick run differ, by at most"
            f" {one['largest']:.1e} of their size."
        )
    for chip, row in bench.get("speed", {}).items():
        text += (
            f"\n\n`fast_crossbars`, {chip} chip: {row['times_faster_than_memtorch']:.0f} times as"
            f" fast as stock MemTorch and {row['times_slower_than_plain_network']:.2f} times the"
            f" plain network's time, {row['times_slower_than_channels_last']:.2f} times that of its"
            f" fastest layout, on the same {row['images']} images in one process."
        )
    return text


BLOCKS = {"steps": steps, "methods": methods, "cures": cures, "times": times}


def load(path):
    """Return a JSON file's content, or None if it does not exist."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def fill(text, results, bench):
    """Return the README with every block made anew."""
    starts, ends = text.count("<!-- results:"), text.count("<!-- /results -->")
    if not starts == ends == len(BLOCK.findall(text)):
        raise ValueError("README.md: a results block is not closed, or closed twice")

    def block(match):
        name = match["name"]
        if name not in BLOCKS:
            raise ValueError(f"README.md: no results block is called {name!r}, only {list(BLOCKS)}")
        return f"{match[1]}\n{BLOCKS[name](results, bench)}\n\n{match[4]}"

    return BLOCK.sub(block, text)


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    root = parser.parse_args().root
    readme = root / "README.md"
    old = readme.read_text(encoding="utf-8")
    try:
        new = fill(old, *(load(root / "figures" / f"{n}.json") for n in ("results", "bench")))
    except (ValueError, KeyError) as error:
        sys.exit(f"README.md is as it was. {error!r}")
    if new == old:
        print("README.md holds the current results already.")
        return
    with replacing(readme) as temporary:
        temporary.write_text(new, encoding="utf-8")
    print("README.md now holds the current results.")


if __name__ == "__main__":
    main()
