#!/usr/bin/env python3
"""Draws perf/results/replication.json as bars: how long a mirrored write takes at depth 1, and how many there are at depth 32.

    perf/chart.py FILE.json FILE.svg
"""
import json
import sys
from html import escape

KINDS = {
    "alone": "one node, unmirrored",
    "kernel": "kernel TCP, MTU 9000",
    "smoltcp": "packet rings, MTU 9000",
    "smoltcp-xdp": "AF_XDP, MTU 9000",
    "smoltcp-1500": "packet rings, MTU 1500",
}
CHARTS = (("p50_us at depth 1", "4 KiB write at depth 1, median, µs"), ("iops at depth 32", "4 KiB writes at depth 32, each second"))
WIDTH, LEFT, ROW = 720, 190, 22


def bars(figures, key, top):
    """The bars of one figure, and how high they are; a line from the least to the most of the rounds."""
    found = [(name, figures[kind][key]) for kind, name in KINDS.items() if key in figures.get(kind, {})]
    scale = (WIDTH - LEFT - 90) / max(value["most"] for _, value in found)
    for row, (name, value) in enumerate(found):
        y = top + row * ROW
        least, median, most = (LEFT + value[part] * scale for part in ("least", "median", "most"))
        shown = f"{value['median']:,.0f}"
        yield f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>'
        yield f'<rect x="{LEFT}" y="{y}" width="{median - LEFT:.1f}" height="14" fill="#4878a8"/>'
        yield f'<line x1="{least:.1f}" x2="{most:.1f}" y1="{y + 7}" y2="{y + 7}" stroke="#222" stroke-width="2"/>'
        yield f'<text x="{most + 8:.1f}" y="{y + 12}">{shown}</text>'


def draw(result):
    parts, top = [], 10
    for key, title in CHARTS:
        drawn = list(bars(result["figures"], key, top + 24))
        parts += [f'<text x="{LEFT}" y="{top + 12}" font-weight="bold">{escape(title)}</text>', *drawn]
        top += 24 + len(drawn) // 4 * ROW + 14
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" font-family="sans-serif" font-size="12">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{top}" fill="white"/>', *parts, "</svg>", ""])


def main():
    source, target = sys.argv[1:]
    with open(source) as file:
        drawn = draw(json.load(file))
    with open(target, "w") as file:
        file.write(drawn)


main()
