"""Write the measured numbers into README.md, from figures/results.json and figures/bench.json.

Everything between `<!-- results:NAME -->` and `<!-- /results -->` is made here; see BLOCKS.
"""

import argparse
import re
import sys
from pathlib import Path

from .bench import BUDGETS, SPEED_BUDGETS
from .files import ROOT, read_json, replacing
from .records import fixed, is_earlier

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
        mean = fixed(lost["mean"], 2)
        return mean if lost["n"] == 1 else f"{mean} ± {fixed(lost['sd'], 2)}"

    lines = [[cure, *(points(row[fault]) for fault in faults)] for cure, row in rows.items()]
    return table(["cure", *faults], lines)


def times(results, bench):
    """What takes how long and how much memory, beside what it may take."""
    bench = bench or {}
    full = " of an earlier version" if results and is_earlier(bench, results) else ""
    rows = [
        ("`make install`", "install_seconds", "{:,.0f} s"),
        ("`make run PROFILE=quick`", "quick_seconds", "{:,.0f} s"),
        ("memory of the quick run", "memory", "{:.1f} GB"),
        (f"`make run FRESH=1`{full}", "full_seconds", "{:,.0f} s"),
        ("memory of the full run", "full_memory", "{:.1f} GB"),
        ("full run, as a share of the course's own sample run", "ratio_to_sample", "{:.2f}"),
    ]

    def shown(value, style):
        scale = 1e9 if "GB" in style else 1
        return "not measured yet" if value is None else style.format(value / scale)

    lines = [[what, shown(bench.get(key), s), shown(BUDGETS[key], s)] for what, key, s in rows]
    notes = [f"Measured on {bench['date']}, {bench['cpu_count']} cores."] if bench else []
    if sample := bench.get("sample"):
        notes.append(
            f"The sample's run was timed on {sample['train_images_timed']:,} images of training and"
            f" {sample['test_images_timed']:,} through stock MemTorch, and scaled to all of its"
            f" images: {bench['sample_seconds']:,.0f} s."
        )
    speed = bench.get("speed", {})
    for chip, row in ((chip, speed[chip]) for chip in SPEED_BUDGETS if chip in speed):
        notes.append(
            f"`fast_crossbars`, {chip} chip: {row['times_faster_than_memtorch']:.0f} times as fast"
            f" as stock MemTorch, {row['times_slower_than_channels_last']:.2f} times the plain"
            f" network's time in its fastest layout (budget {SPEED_BUDGETS[chip]}), on the same"
            f" {row['images']} images in one process."
        )
    return "\n\n".join([table(["what", "measured", "budget"], lines), *notes])


BLOCKS = {"steps": steps, "methods": methods, "cures": cures, "times": times}


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
    parser.add_argument("--root", type=Path, default=ROOT)
    root = parser.parse_args().root
    readme = root / "README.md"
    old = readme.read_text(encoding="utf-8")
    try:
        new = fill(
            old,
            *(
                read_json(root / "figures" / f"{n}.json", missing=None)
                for n in ("results", "bench")
            ),
        )
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
