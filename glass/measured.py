"""How often the run is right, by its last test: what one label on the page is to be read with."""

from pathlib import Path

from report.intervals import wilson


def measured(run) -> dict | None:
    """What run.json holds of the run's last test: `n` posts, the share `right` of them, its 95 % interval and the
    files' names; None for a run that eval.py has not tested, or whose entry was written without an accuracy.

    The interval is that of the report, in which posts that belong together count together; where an entry has none, as
    those of former versions, Wilson's for posts that do not.
    """
    scored = run.folder.facts["scored"]
    found = [(entry["n"], entry.get("accuracy")) for entry in scored]
    n, right = found[-1] if found else (0, None)
    if n < 1 or not isinstance(right, float | int) or not 0 <= right <= 1:
        return None
    first = len(found)  # a test of several files has an entry for each, with the figures of all
    while first and found[first - 1] == (n, right):
        first -= 1
    files = dict.fromkeys(Path(entry["data"]).name for entry in scored[first:])
    return {"n": n, "right": right, "interval": kept(scored[-1], right) or wilson(right * n, n), "files": list(files)}


def kept(entry: dict, right: float) -> tuple[float, float] | None:
    """The entry's own interval, if it has one that holds the share."""
    ends = entry.get("interval")
    if not isinstance(ends, list) or len(ends) != 2 or not all(isinstance(end, float | int) for end in ends):
        return None
    return (ends[0], ends[1]) if 0 <= ends[0] <= right <= ends[1] <= 1 else None
