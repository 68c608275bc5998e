"""Writes what was measured as Markdown: the table, the targets, and what has to be known to read them."""

import os
import platform
import statistics
from dataclasses import dataclass
from pathlib import Path

from programs import NOTES, PROGRAMS

TITLES = {program.key: program.title for program in PROGRAMS}
PEERS = {program.key for program in PROGRAMS if program.is_peer}

TREES = """\
**c** is debian-py (a Debian system with Python packages), **d** node (a `node_modules`), **e** big (large files, one of them
an SQLite database). The edited database is big-edited, saved after big: a tree at another path, of which only the
database differs, in 3,000 rows.
"""

METHOD = """\
Inputs (for a restore or a check the repository) are read into the page cache before each step, and what was written before
is synced. Repositories are on a disk and new in each run; stored is the sum of their files' sizes, without keys and caches
that are kept elsewhere. Unchanged again, and the 25 files with a few bytes inserted, are saves of the same directory. Memory
is the greatest sum of the anonymous memory (RssAnon) of a step's processes, asked every 10 ms in a run of its own.
"""

# What a row is kept by, what it is called, and how many decimals it has. The best of layerstone and its peers is bold.
ROWS = [
    ("first c", "first snapshot c, s", 2),
    ("first d", "first snapshot d, s", 2),
    ("first e", "first snapshot e, s", 2),
    ("stored c", "stored c, MB", 1),
    ("stored d", "stored d, MB", 1),
    ("stored e", "stored e, MB", 1),
    ("again c", "unchanged again c, s", 2),
    ("again d", "unchanged again d, s", 2),
    ("again e", "unchanged again e, s", 2),
    ("changes c", "25 small changes in c, s", 2),
    ("changes stored c", "stored by those, KB", 0),
    ("restore c", "restore c to tmpfs, s", 2),
    ("restore d", "restore d to tmpfs, s", 2),
    ("restore e", "restore e to tmpfs, s", 2),
    ("check c", "read back and check c, s", 2),
    ("check d", "read back and check d, s", 2),
    ("check e", "read back and check e, s", 2),
    ("layers stored", "debian, then -dev, then -py: total, MB", 1),
    ("edited e", "edited database, s", 2),
    ("edited stored e", "growth by it, MB", 1),
    ("memory c", "peak memory of any step on c, MB", 0),
    ("memory d", "peak memory of any step on d, MB", 0),
    ("memory e", "peak memory of any step on e, MB", 0),
]


def median(figures, row, key):
    values = figures.values.get((row, key))
    return statistics.median(values) if values else None


def best_peer(figures, row):
    """The peer with the least in a row and its median, if one has a value."""
    values = {key: median(figures, row, key) for key in PEERS}
    values = {key: value for key, value in values.items() if value is not None}
    key = min(values, key=values.get, default=None)
    return key, values.get(key)


@dataclass
class Target:
    """What layerstone is to reach in a row: to be `factor` times as fast as another (`is_speed`), or to need at most
    `factor` of what it needs. The other is a program, or the best peer; without another, the factor is the value itself."""

    row: str
    factor: float
    against: str | None = "best"
    is_speed: bool = False

    def line(self, figures):
        ours, (other_key, other) = median(figures, self.row, "layerstone"), self.other(figures)
        title = next(title for row, title, _ in ROWS if row == self.row)
        cells = [title, self.wanted(), "", "not measured"]
        if ours is not None and other:
            ratio = other / ours if self.is_speed else ours / other
            is_met = ratio >= self.factor if self.is_speed else ratio <= self.factor
            named = f" ({TITLES[other_key]})" if self.against == "best" else ""
            cells[2:] = [f"{ratio:.3f}{named}" if self.against else f"{ratio:.0f}", "met" if is_met else "**not met**"]
        return f"| {' | '.join(cells)} |"

    def other(self, figures):
        if self.against is None:
            return None, 1.0
        if self.against == "best":
            return best_peer(figures, self.row)
        return self.against, median(figures, self.row, self.against)

    def wanted(self):
        if self.against is None:
            return f"≤ {self.factor:g}"
        other = "the best peer" if self.against == "best" else TITLES[self.against]
        return f"≥ {self.factor:g} × as fast as {other}" if self.is_speed else f"≤ {self.factor:g} of {other}"


def faster(row, factor, against="best"):
    return Target(row, factor, against, is_speed=True)


TARGETS = [
    faster("first c", 2.1, "bupstash"),
    Target("first c", 0.75, "tar"),
    faster("first d", 3.0, "bupstash"),
    faster("first e", 1.6, "bupstash"),
    Target("stored c", 0.98),
    Target("stored d", 0.94),
    Target("stored e", 1.0),
    faster("again d", 2.0, "bupstash"),
    Target("edited stored e", 1.0, "casync"),
    faster("edited e", 2.0),
    faster("restore d", 2.5),
    faster("restore d", 2.0, "cp"),
    faster("restore c", 1.6),
    Target("restore c", 1.0, "cp"),
    Target("layers stored", 0.95, "rustic"),
    faster("check c", 3.0),
    faster("check d", 3.0),
    Target("memory c", 120, None),
    Target("memory d", 120, None),
    Target("memory e", 120, None),
]


def table(figures, programs):
    lines = ["| | " + " | ".join(program.title for program in programs) + " |", "|---" * (len(programs) + 1) + "|"]
    for row, title, decimals in ROWS:
        values = [median(figures, row, program.key) for program in programs]
        rivals = [v for p, v in zip(programs, values) if v is not None and (p.is_peer or p.key == "layerstone")]
        best = f"{min(rivals):.{decimals}f}" if rivals else None
        cells = ["" if value is None else f"{value:.{decimals}f}" for value in values]
        for index, program in enumerate(programs):
            if cells[index] == best and (program.is_peer or program.key == "layerstone"):
                cells[index] = f"**{best}**"
        if any(cells):
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return lines


def machine():
    model = platform.processor()
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return f"{os.cpu_count()} cores, {model}, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}"


def left_out_lines(figures, left_out):
    lines = [f"- {title} is left out: {why}" for title, why in left_out.items()]
    lines += [f"- {TITLES[key]}, {row}: {why}" for (row, key), why in figures.failures.items()]
    return ["", "Left out or failed:", "", *lines] if lines else []


def text(figures, programs, runs, left_out):
    of_runs = f"Medians of {runs} runs" if runs > 1 else "One run"
    versions = ", ".join(f"{Path(p.binary).name} {p.version_text()}" for p in programs if p.key not in ("borg-lz4", "tar", "cp"))
    lines = [
        "# layerstone beside its peers",
        "",
        f"{of_runs}, programs alternating, on {machine()}. Versions: {versions}.",
        "",
        TREES,
        *table(figures, programs),
        "",
        METHOD,
        NOTES.rstrip("\n"),
        *left_out_lines(figures, left_out),
        "",
        "## Targets",
        "",
        "| work | wanted | measured | |",
        "|---|---|---|---|",
        *[target.line(figures) for target in TARGETS],
    ]
    return "\n".join(lines) + "\n"
