"""Draws the results that tests/bench/run.sh left in build/bench as charts: one SVG file for each bench, one panel for each race.

    build/venv/bin/python tests/bench/charts.py [--results build/bench] [--out docs/charts] [--select REGEX] [--ours REGEX] [NAME …]

A bar is the median of the rounds, a thin line goes from the fastest to the slowest one; shorter is better. What is ours is dark. It needs
matplotlib (tests/bench/requirements.txt).
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402  (the backend is chosen before)

OURS = "#1f4e79"
PEERS = "#b8c4d0"
LOG_FROM_RATIO = 20.0  # A race whose slowest takes so many times as long as its fastest is drawn on a logarithmic scale.
PANEL_WIDTH_INCHES = 9.0
BAR_INCHES = 0.32


def races_of(samples: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    races: dict[str, list[dict[str, Any]]] = {}
    for sample in samples:
        races.setdefault(sample["race"], []).append(sample)
    return races


def readable(value: float, unit: str) -> str:
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}"


def draw(name: str, races: dict[str, list[dict[str, Any]]], ours: re.Pattern[str], out: pathlib.Path) -> None:
    heights = [len(contenders) * BAR_INCHES + 0.55 for contenders in races.values()]
    figure, axes = pyplot.subplots(
        len(races), 1, figsize=(PANEL_WIDTH_INCHES, sum(heights) + 0.2), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axis, (title, contenders) in zip(axes[:, 0], races.items()):
        medians = [contender["median"] for contender in contenders]
        names = [contender["contender"] for contender in contenders]
        positions = range(len(contenders))
        axis.barh(positions, medians, color=[OURS if ours.search(each) else PEERS for each in names], height=0.7)
        for position, contender in zip(positions, contenders):
            axis.plot([min(contender["rounds"]), max(contender["rounds"])], [position, position], color="black", linewidth=0.8)
            text = readable(contender["median"], contender["unit"])
            axis.annotate(text, (max(contender["median"], max(contender["rounds"])), position), xytext=(4, 0),
                          textcoords="offset points", va="center", fontsize=8)
        if min(medians) > 0 and max(medians) / min(medians) > LOG_FROM_RATIO:
            axis.set_xscale("log")
            axis.set_xlim(left=10 ** math.floor(math.log10(min(medians)) - 0.3))
            title += " (logarithmic)"
        axis.set_yticks(list(positions), names, fontsize=8)
        axis.invert_yaxis()
        axis.set_title(title, fontsize=9, loc="left")
        axis.tick_params(axis="x", labelsize=7)
        axis.margins(x=0.18)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None, "Title": name})
    pyplot.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=pathlib.Path, default=pathlib.Path("build/bench"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/charts"))
    parser.add_argument("--select", default="", help="only races whose title this regular expression finds")
    parser.add_argument("--ours", default="statehouse", help="what is Statehouse among the contenders: a regular expression")
    parser.add_argument("names", nargs="*", help="benches, as their files are called; all unless given")
    options = parser.parse_args()
    # Text stays text, and the same results give the same file.
    pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "statehouse", "font.family": "sans-serif"})
    files = [options.results / f"{name}.json" for name in options.names] or sorted(options.results.glob("*.json"))
    options.out.mkdir(parents=True, exist_ok=True)
    drawn = 0
    for file in files:
        try:
            samples = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            print(f"charts.py: reading {file}: {error}; run the bench with --json {file}", file=sys.stderr)
            return 1
        if not isinstance(samples, list):
            print(f"charts.py: {file} holds samples without races; it is left out", file=sys.stderr)
            continue
        races = {title: each for title, each in races_of(samples).items() if re.search(options.select, title)}
        if races:
            draw(file.stem, races, re.compile(options.ours, re.IGNORECASE), options.out / f"{file.stem}.svg")
            drawn += 1
    print(f"{drawn} charts in {options.out}")
    return 0 if drawn else 1


if __name__ == "__main__":
    sys.exit(main())
