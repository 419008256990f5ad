"""Figures as text, and Markdown tables of them."""


def amount(value, unit):
    if value is None:
        return "-"
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 3
    return f"{value:,.{digits}f} {unit}"


def share(value):
    return "-" if value is None else f"{100 * value:.1f} %"


def verdict(value, goal, text, most=False):
    """The figure, in bold if it misses its goal: to be at least that, or with `most` at most."""
    if value is None:
        return "-"
    good = value <= goal if most else value >= goal
    return text(value) if good else f"**{text(value)}**"


def spread(found, text):
    """A median with the range of the repeats (common.summary())."""
    if found["median"] is None:
        return "-"
    if found["low"] == found["high"]:
        return text(found["median"])
    return f"{text(found['median'])} ({text(found['low'])} to {text(found['high'])})"


def table(heads, rows):
    for row in rows:
        if len(row) != len(heads):
            raise ValueError(f"{len(row)} cells under {len(heads)} heads")
    return ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads),
            *("| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in row) + " |"
              for row in rows)]
