"""What figures/results.json and bench.json say, for those who note it and those who show it."""

from .files import read_json, write_json

FULL_RUN = ("full_seconds", "full_memory", "full_code_hash")


def fixed(value, digits):
    """A number with so many decimals; nought has no sign."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def is_earlier(bench, results):
    """Tell whether the full run that was timed belongs to other code than the results."""
    return bench.get("full_code_hash") not in (None, results["code_hash"])


def with_ratio(bench):
    """The record with the full run's time as a share of the course's own sample run; None as long
    as one of them is missing."""
    full, sample = bench.get("full_seconds"), bench.get("sample_seconds")
    return bench | {"ratio_to_sample": full / sample if full and sample else None}


def note_full_run(figures, memory):
    """Note in bench.json what a full run took, if it reused nothing."""
    results = read_json(figures / "results.json", missing={})
    if results.get("resumed", True):
        return
    values = (round(results["run_seconds"], 1), memory, results["code_hash"])
    bench = read_json(figures / "bench.json", missing={})
    bench |= dict(zip(FULL_RUN, values, strict=True))
    write_json(figures / "bench.json", with_ratio(bench))
