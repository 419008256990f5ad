"""Plots of a run, by gnuplot; a host without it has the tables only."""

import shutil
import subprocess

from common import HERE, say


def gnuplot(script, table, picture):
    """Whether it is drawn. Figures that cannot be, as of a peer that made no checkpoint, are in the tables all the
    same."""
    done = subprocess.run(["gnuplot", "-e", f"table='{table}'; picture='{picture}'", HERE / script],
                          stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    if done.returncode != 0:
        picture.unlink(missing_ok=True)
        say(f"no {picture.name}: {done.stderr.strip()}")
    return done.returncode == 0


def blocks(path, named_rows):
    """Tab separated blocks with a name before each, for gnuplot's `index`."""
    with open(path, "w", encoding="utf-8") as file:
        for name, rows in named_rows:
            file.write(f'"{name}"\n')
            for row in rows:
                file.write("\t".join("NaN" if cell is None else str(cell) for cell in row) + "\n")
            file.write("\n\n")


def progress_blocks(data):
    sets = sorted({(int(row["pages_per_epoch"]), int(row.get("hot_pages", 0))) for row in data["rows"]})
    return [(f"{pages} pages{', hot ones stay writable' if hot else ''}",
             [(row["epochs_per_s"], 100 * row["progress_share"]) for row in data["rows"]
              if (int(row["pages_per_epoch"]), int(row.get("hot_pages", 0))) == (pages, hot)]) for pages, hot in sets]


def peers_blocks(data):
    def cells(load, vmm):
        found = load["medians"][vmm]["fastest"]
        name = load["pages_per_s"] or "all"
        return [f'"{name}"', *(found[measure]["median"] for measure in
                               ("checkpoints_per_s", "pause_p50_ms", "pause_p99_ms"))]
    return [(vmm, [cells(load, vmm) for load in data["loads"]]) for vmm in ("colo", "romulus")]


MAKERS = {"progress": progress_blocks, "peers": peers_blocks}  # epoch_rate writes its table itself


def draw(folder, found):
    """The names of the benches of which there is a plot: NAME.svg."""
    if not shutil.which("gnuplot"):
        say("no gnuplot: no plots")
        return set()
    drawn = set()
    for name in {"epoch_rate", *MAKERS} & set(found):
        if name in MAKERS:
            blocks(folder / f"{name}.tsv", MAKERS[name](found[name]))
        if gnuplot(f"{name}.gp", folder / f"{name}.tsv", folder / f"{name}.svg"):
            drawn.add(name)
    return drawn
