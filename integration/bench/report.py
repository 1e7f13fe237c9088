"""Rows of figures as lines on the terminal, as a Markdown table and as an SVG chart."""

import os
from xml.sax.saxutils import escape

COLUMNS = ("rustbox", "crun", "runc", "bwrap", "floor", "C true")
COLOURS = {"rustbox": "#c2410c", "crun": "#475569", "runc": "#94a3b8", "bwrap": "#64748b", "floor": "#0f766e",
           "C true": "#0f766e"}


def row(name, unit, values, targets=(), chart=False):
    """One measurement: figures by name, and targets as (text, met, ratio or None)."""
    return {"name": name, "unit": unit, "values": values, "targets": list(targets), "chart": chart}


def at_most(values, who, factor, peer):
    """The target that `who` takes at most `factor` times what `peer` takes."""
    return (f"≤ {factor:g} × {peer}", values[who] <= factor * values[peer], values[who] / values[peer])


def figure(value, unit):
    if unit == "calls":
        return f"{value:.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def verdict(target):
    text, met, ratio = target
    measured = "" if ratio is None else f" ({ratio:.2f})"
    return f"{'PASS' if met else 'MISS'} {text}{measured}"


def line(row):
    """The row as one line for a person to read while the rest is still running."""
    values = "  ".join(f"{who} {figure(value, row['unit'])}" for who, value in row["values"].items())
    targets = "".join(f"  [{verdict(target)}]" for target in row["targets"])
    return f"{row['name']}: {values} {row['unit']}{targets}"


def table(rows):
    present = [who for who in COLUMNS if any(who in row["values"] for row in rows)]
    lines = ["| what | " + " | ".join(present) + " | unit | target (measured ratio) |",
             "|---|" + "---:|" * len(present) + "---|---|"]
    for row in rows:
        cells = [figure(row["values"][who], row["unit"]) if who in row["values"] else "" for who in present]
        targets = "<br>".join(verdict(target) for target in row["targets"])
        lines.append(f"| {row['name']} | " + " | ".join(cells) + f" | {row['unit']} | {targets} |")
    return lines


def chart(rows):
    """Grouped horizontal bars, each group on a scale of its own: what is compared is within a group."""
    width, label, bar, scale = 760, 110, 18, 520
    parts, y = [], 10
    for row in rows:
        y += 16
        parts.append(f'<text x="10" y="{y}" font-weight="bold">{escape(row["name"].replace("`", ""))}</text>')
        y += 8
        top = max(row["values"].values())
        for who, value in row["values"].items():
            length = max(1, scale * value / top)
            parts.append(f'<text x="{label}" y="{y + 13}" text-anchor="end">{escape(who)}</text>')
            parts.append(f'<rect x="{label + 8}" y="{y}" width="{length:.1f}" height="{bar - 4}" fill="{COLOURS[who]}"/>')
            parts.append(f'<text x="{label + 14 + length:.1f}" y="{y + 13}">{figure(value, row["unit"])} {row["unit"]}</text>')
            y += bar
        y += 10
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y + 6}" viewBox="0 0 {width} {y + 6}" '
            f'font-family="sans-serif" font-size="13" fill="#111827">\n'
            f'<rect width="{width}" height="{y + 6}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n")


def write(directory, about, rows, notes, quick):
    """Writes benchmarks.md and benchmarks.svg."""
    text = ["# Benchmarks", "",
            "Written by `make bench`; medians. A ratio compares figures of the same run on the same machine.", ""]
    if quick:
        text += ["**A quick run with few samples: it shows that the bench works, not how fast anything is.**", ""]
    text += [f"- {key}: {value}" for key, value in about.items()]
    text += ["", "![Bars for the rows below](benchmarks.svg)", "", *table(rows), ""]
    text += [*notes, ""]
    with open(os.path.join(directory, "benchmarks.md"), "w") as file:
        file.write("\n".join(text))
    with open(os.path.join(directory, "benchmarks.svg"), "w") as file:
        file.write(chart([row for row in rows if row["chart"]]))
