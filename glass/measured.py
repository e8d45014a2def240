"""How often the run is right, by its last test: what one label on the page is to be read with."""

from pathlib import Path

from report.intervals import wilson


def measured(run) -> dict | None:
    """What run.json holds of the run's last test: `n` posts, the share `right` of them, its 95 % interval (Wilson) and
    the files' names; None for a run that eval.py has not tested, or whose entry was written without an accuracy."""
    scored = run.folder.facts["scored"]
    found = [(entry["n"], entry.get("accuracy")) for entry in scored]
    n, right = found[-1] if found else (0, None)
    if n < 1 or not isinstance(right, float | int) or not 0 <= right <= 1:
        return None
    first = len(found)  # a test of several files has an entry for each, with the figures of all
    while first and found[first - 1] == (n, right):
        first -= 1
    files = dict.fromkeys(Path(entry["data"]).name for entry in scored[first:])
    return {"n": n, "right": right, "interval": wilson(right * n, n), "files": list(files)}
