"""Curves of how often each light is green, from what `operating_characteristics.py` wrote.

    python benchmarks/operating_curves.py RATES.jsonl ... --out PICTURE.png

One panel a light and fault, one line a file: solid for green, dashed for amber or red. Strength 0
are sets of fresh real images. A table of the reference faults is printed.
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

WORST_COPIES = "copies, the worst alteration"
PANELS = (
    ("useful", "wrong labels"), ("useful", "blur, pixels"), ("useful", "grain, deviation"),
    ("useful", "kinds of a class missing"),
    ("faithful", "wrong labels"), ("faithful", "blur, pixels"), ("faithful", "grain, deviation"),
    ("faithful", "kinds of a class missing"), ("faithful", "groups of a class missing"),
    ("faithful", "tint"), ("private", "copies, exact"), ("private", WORST_COPIES),
)  # fmt: skip
REFERENCE = (
    ("useful", "none", 0.0), ("useful", "wrong labels", 0.2),
    ("faithful", "none", 0.0), ("faithful", "kinds of a class missing", 0.5),
    ("faithful", "groups of a class missing", 0.5), ("faithful", "blur, pixels", 1.0),
    ("faithful", "wrong labels", 0.2),
    ("private", "none", 0.0), ("private", WORST_COPIES, 0.01), ("private", "copies, exact", 0.01),
)  # fmt: skip


def rates_of(path: Path) -> list[dict]:
    """The lines of a file, and those of the alteration whose copies are green most often."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    copies = [line for line in lines if line["fault"].startswith("copies")]
    for strength in sorted({line["strength"] for line in copies}):
        of_strength = [line for line in copies if line["strength"] == strength]
        worst = max(of_strength, key=lambda line: (line["green"], -line["red"] - line["amber"]))
        lines.append({**worst, "fault": WORST_COPIES})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rates", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    files = {path.stem: rates_of(path) for path in arguments.rates}
    figure, axes = plt.subplots(3, 4, figsize=(13, 8), sharey=True, layout="constrained")
    for axis, (question, fault) in zip(axes.ravel(), PANELS, strict=True):
        for name, lines in files.items():
            shown = [
                line for line in lines
                if line["question"] == question and line["fault"] in ("none", fault)
            ]  # fmt: skip
            strengths = [line["strength"] for line in shown]
            (drawn,) = axis.plot(strengths, [line["green"] for line in shown], "o-", label=name)
            noticed = [line["amber"] + line["red"] for line in shown]
            axis.plot(strengths, noticed, "--", color=drawn.get_color(), lw=0.8)
        axis.set_title(f"{question}: {fault}", fontsize=9)
        axis.set_ylim(-0.03, 1.03)
        axis.axhline(0.05, color="grey", lw=0.5)
    axes[0, 0].legend(fontsize=7)
    figure.supylabel("fraction of sets that are green (solid), amber or red (dashed)", fontsize=9)
    figure.savefig(arguments.out, dpi=90)
    print("| light | fault | " + " | ".join(files) + " |")
    print("|---|---|" + "---|" * len(files))
    for question, fault, strength in REFERENCE:
        entries = []
        for lines in files.values():
            key = (question, fault, strength)
            line = next(x for x in lines if (x["question"], x["fault"], x["strength"]) == key)
            entries.append(f"{100 * line['green']:.0f} / {100 * line['grey']:.0f}")
        print(f"| {question} | {fault} {strength:g} | " + " | ".join(entries) + " |")


if __name__ == "__main__":
    main()
