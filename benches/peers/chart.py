"""Draws what was measured as an SVG: a panel of bars for each of the main rows, for light and for dark pages."""

from xml.sax.saxutils import escape

from report import median

PANELS = [
    ("first c", "First snapshot: Debian with Python", "s", 2),
    ("first d", "First snapshot: node_modules", "s", 2),
    ("first e", "First snapshot: large files", "s", 2),
    ("edited e", "Snapshot after 3,000 edited database rows", "s", 2),
    ("again d", "Snapshot of unchanged node_modules", "s", 2),
    ("changes c", "Snapshot after 25 small changes", "s", 2),
    ("restore c", "Restore: Debian with Python", "s", 2),
    ("restore d", "Restore: node_modules", "s", 2),
    ("check d", "Read back and check: node_modules", "s", 2),
    ("stored d", "Stored: node_modules", "MB", 0),
    ("layers stored", "Stored: three Debian systems in turn", "MB", 0),
    ("memory d", "Peak memory of any step: node_modules", "MB", 0),
]

STYLE = """\
.page { fill: #ffffff } .title { fill: #1f2328; font-weight: 600 } .name { fill: #59636e }
.value { fill: #59636e } .ours { fill: #1f2328; font-weight: 600 }
.bar { fill: #9aa7b5 } .reference { fill: #d5dbe1 } .layerstone { fill: #d9480f }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117 } .title { fill: #f0f6fc } .name { fill: #9198a1 }
.value { fill: #9198a1 } .ours { fill: #f0f6fc }
.bar { fill: #56616e } .reference { fill: #30373f } .layerstone { fill: #f76707 }
}"""

COLUMNS, COLUMN_WIDTH, MARGIN, NAME_WIDTH, VALUE_WIDTH = 2, 430, 20, 112, 62
LINE, BAR, HEAD, GAP = 18, 12, 26, 20


def bars(figures, programs, row):
    values = [(program, median(figures, row, program.key)) for program in programs]
    return [(program, value) for program, value in values if value is not None]


def colour(program):
    if program.key == "layerstone":
        return "layerstone"
    return "bar" if program.is_peer else "reference"


def panel(left, top, title, unit, decimals, rows):
    parts = [f'<text class="title" x="{left}" y="{top + 12}">{escape(title)}, {unit}</text>']
    longest = max(value for _, value in rows) or 1
    room = COLUMN_WIDTH - MARGIN - NAME_WIDTH - VALUE_WIDTH
    for index, (program, value) in enumerate(rows):
        y, width = top + HEAD + index * LINE, max(1, room * value / longest)
        is_ours = program.key == "layerstone"
        x = left + NAME_WIDTH
        parts.append(f'<text class="{"ours" if is_ours else "name"}" x="{x - 8}" y="{y + 10}" text-anchor="end">'
                     f"{escape(program.title)}</text>")
        parts.append(f'<rect class="{colour(program)}" x="{x}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2"/>')
        parts.append(f'<text class="{"ours" if is_ours else "value"}" x="{x + width + 6:.1f}" y="{y + 10}">'
                     f"{value:.{decimals}f}</text>")
    return parts


def svg(figures, programs):
    panels = [(title, unit, decimals, bars(figures, programs, row)) for row, title, unit, decimals in PANELS]
    panels = [each for each in panels if each[-1]]
    parts, top = [], MARGIN
    for start in range(0, len(panels), COLUMNS):
        beside = panels[start : start + COLUMNS]
        for column, (title, unit, decimals, rows) in enumerate(beside):
            parts += panel(MARGIN + column * COLUMN_WIDTH, top, title, unit, decimals, rows)
        top += HEAD + LINE * max(len(rows) for *_, rows in beside) + GAP
    width, height = MARGIN + COLUMNS * COLUMN_WIDTH, top
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    head += ' font-family="system-ui, sans-serif" font-size="12" role="img">'
    about = "<title>layerstone beside its peers: less is better</title>"
    page = '<rect class="page" width="100%" height="100%"/>'
    return "\n".join([head, about, f"<style>{STYLE}</style>", page, *parts, "</svg>", ""])
