"""Write the measured numbers into README.md, from figures/results.json and figures/bench.json.

Everything between `<!-- results:NAME -->` and `<!-- /results -->` is made here; see BLOCKS.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

from .files import ROOT, read_json, replacing
from .records import fixed, is_earlier

BLOCK = re.compile(
    r"(<!-- results:(?P<name>[\w-]+) -->\n)(?P<body>.*?)(<!-- /results -->)", re.DOTALL
)
NONE_YET = "No results yet: `make run` writes them."
COLAB = "https://colab.research.google.com"
# The steps that README shows, by their id in the results; the notebook has more.
STEPS = (
    "software_erm",
    "software_erm_do",
    "software_backdoor_do",
    "memristors_stock",
    "broken_headline",
    "broken_hardened",
)


def table(header, rows):
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(value):
    """A mean in per cent, with one decimal as everywhere."""
    return f"{fixed(100 * value['mean'], 1)}%"


def accuracy(value):
    """`mean ± sd (n)` in per cent; a single measurement has no spread."""
    spread = f" ± {fixed(100 * value['sd'], 1)}" if value["n"] > 1 else ""
    return f"{fixed(100 * value['mean'], 1)}{spread} ({value['n']})"


def minutes(seconds):
    """A time as one would say it."""
    if seconds is None:
        return "not timed yet"
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def story(results, bench):
    """What was found, in three sentences, in English and in Chinese beside them."""
    if not results:
        return NONE_YET
    step = {s["id"]: percent(s["accuracy"]) for s in results["steps"]}
    erm, erm_do, headline = (step[name] for name in STEPS[:3])
    broken, hardened = step["broken_headline"], step["broken_hardened"]
    strata = percent(results["software"]["strata"]["accuracy_do"])
    ceiling = f"{fixed(100 * results['ceiling']['test'], 1)}%"
    fall = {way: percent(row["balanced"]) for way, row in results["fall"]["sample"].items()}
    software, stock = fall["software"], fall["as the sample"]
    restored = fall["scale restored"]
    return table(
        ["what was found", "主要结果"],
        [
            [
                f"**Cause.** Usual training has {erm} where colour misleads, {erm_do} by the "
                f"backdoor formula. Strata of colour reach {strata}, with self-training "
                f"{headline}, of {ceiling} that label noise allows.",
                f"**因果。** 颜色误导时，常规训练的网络准确率为{erm}，用后门公式预测则为{erm_do}。"
                f"按颜色分层为{strata}，加自训练为{headline}，标签噪声允许的上限为{ceiling}。",
            ],
            [
                "**Conversion.** MemTorch loses the scale of inputs: the course's network goes "
                f"from {software} to {stock} on its own balanced test, and with the scale restored "
                f"back to {restored}.",
                f"**转换。** MemTorch缩放了输入却从未还原：课程样例的网络在其平衡测试集上"
                f"由{software}变为{stock}，还原尺度后为{restored}。",
            ],
            [
                "**Broken chips.** With a tenth of its devices stuck the headline network has "
                f"{broken}. One made for hardware has {hardened} with three tenths stuck.",
                f"**故障芯片。** 一成器件卡死时，主网络的准确率为{broken}；"
                f"三成卡死时，面向硬件的网络仍有{hardened}。",
            ],
        ],
    )


def commands(results, bench):
    """The two commands, and how long they take."""
    results, bench = results or {}, bench or {}
    run = bench.get("full_seconds")
    if run is None or is_earlier(bench, {"code_hash": results.get("code_hash")}):
        whole = results.get("profile") == "full" and not results.get("resumed", True)
        run = results["run_seconds"] if whole else None
    cores = f" on {bench.get('cpu_count') or results['machine']['cores']} cores" if run else ""
    return (
        "```\n"
        f"make run     # install if needed, execute the notebook: {minutes(run)}{cores}\n"
        f"make test    # everything that CI checks: {minutes(bench.get('test_seconds'))}\n"
        "```"
    )


def steps(results, bench):
    """Six steps from the shortcut to a broken chip that holds."""
    if not results:
        return NONE_YET
    rows = [
        [s["title"], accuracy(s["accuracy"]), s["test_set"].partition("0.9, ")[2] or s["test_set"]]
        for s in results["steps"]
        if s["id"] in STEPS
    ]
    software = percent(results["fall"]["backdoor"]["software"]["accuracy"])
    return (
        table(["step", "accuracy, % (networks or chips)", "test images"], rows)
        + f"\n\nMean ± standard deviation where colour misleads, {results['profile']} profile;"
        f" ceiling {fixed(100 * results['ceiling']['test'], 1)}%, a coin gets one half. The row of"
        f" MemTorch is plain, where software has {software}; so is the first one of broken chips."
        " The last one is the headline's accuracy less the points that such chips lose. From"
        " [`figures/results.json`](figures/results.json), which the notebook writes."
    )


def times(results, bench):
    """What `make bench` recorded."""
    bench = bench or {}
    full = ", an earlier version" if results and is_earlier(bench, results) else ""
    rows = [
        ("`make install`", "install_seconds", None),
        ("`make run PROFILE=quick`", "quick_seconds", "memory"),
        (f"`make run FRESH=1`{full}", "full_seconds", "full_memory"),
    ]
    lines = []
    for what, seconds, memory in rows:
        took = f"{bench[seconds]:,.0f} s" if seconds in bench else "not measured yet"
        lines.append([what, took + (f", {bench[memory] / 1e9:.1f} GB" if memory in bench else "")])
    ratio = bench.get("ratio_to_sample")
    lines.append(["that / the course's own run", f"{ratio:.2f}" if ratio else "not measured yet"])
    if row := (results or {}).get("fast_crossbars", {}).get("whole chip"):  # as in the report
        faster = f"{row['times_faster_than_memtorch']:.0f} times as fast as MemTorch"
        slower = f"{row['times_slower_than_plain_network']:.1f} times the plain network's time"
        lines.append(["`fast_crossbars`", f"{faster}, {slower}, in one thread"])
    note = f"\n\nMeasured on {bench['date']}, {bench['cpu_count']} cores." if bench else ""
    if sample := bench.get("sample"):
        note += (
            f" The sample's run: {sample['train_images_timed']:,} images of training and"
            f" {sample['test_images_timed']:,} through MemTorch, scaled to all of its images:"
            f" {bench['sample_seconds']:,.0f} s."
        )
    return table(["what", "measured"], lines) + note


def hosted(results, bench):
    """A badge that opens the committed notebook in Colab: from GitHub, where `origin` lies there,
    else by uploading it."""
    origin = subprocess.run(
        ["git", "config", "remote.origin.url"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    found = re.search(r"github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?$", origin.strip())
    place = f"github/{found[1]}/blob/main/coloredmnist.ipynb" if found else "#upload=true"
    badge = f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({COLAB}/{place})"
    return badge if found else f"{badge} and upload `coloredmnist.ipynb`; it brings all it needs."


BLOCKS = {"hosted": hosted, "story": story, "commands": commands, "steps": steps, "times": times}


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
