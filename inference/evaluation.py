"""The folder of an evaluation: what may be written over, so that nothing but an earlier evaluation is replaced."""

from pathlib import Path

from common.errors import UserError
from common.files import check_place, read_json
from common.reading import check_path
from data.rows import stem
from finetune.run_folder import RunFolder

METRICS = "metrics.json"
OURS = {METRICS, "predictions.jsonl", "report.html", "baseline.jsonl"}  # what eval.py writes


def check_out(out: Path, explicit: bool) -> None:
    """Raise `UserError` unless `out` is new, empty, or an evaluation and nothing else; `explicit`: --out named it."""
    check_path(out / METRICS)
    if out.exists():
        option = f"--out {out}" if explicit else str(out)
        there = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
        if other := sorted(there - OURS):
            raise UserError(f"{option}: holds something that is not an evaluation ({other[0]}); choose another folder")
        if there and not is_metrics(out / METRICS):
            raise UserError(f"{option}: holds something that is not an evaluation; choose another folder")
    check_place(out, "--out")


def is_metrics(path: Path) -> bool:
    """Whether a file is the metrics.json of an evaluation, and not one of another program's."""
    try:
        return "by_language" in read_json(path)
    except (UserError, TypeError):
        return False


def check_same_data(run: RunFolder, out: Path, data: str, is_given: bool = True) -> None:
    """Raise `UserError` where `out`, which nobody named, holds the evaluation of another file of this name; is_given:
    whether `data` was named, or stands for the sample posts."""
    earlier = [past["data"] for past in run.facts["scored"] if stem(Path(past["data"])) == stem(Path(data))]
    if out.exists() and earlier and Path(earlier[-1]).resolve() != Path(data).resolve():
        raise UserError(f"{out}: holds the evaluation of {earlier[-1]}; name another folder with --out" if is_given else
                        f"--data: was left out, so the sample posts would be scored, but {out} holds the evaluation of "
                        f"{earlier[-1]}; name the posts, or another folder with --out")
