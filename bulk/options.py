"""Options of a labelling that takes hours: folders, parts of a job, what is said of it before, meanwhile and after."""

import re
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.options import option
from data.writers import OUTPUT_FORMATS

MANY = "many posts"  # the group of these options in --help
FORMATS = tuple(kind.removeprefix(".") for kind in OUTPUT_FORMATS)
_SHARD = re.compile(r"([1-9]\d{0,5})/([1-9]\d{0,5})")


@dataclass
class BulkOptions:
    """What goes with folders of files and with jobs that are stopped and go on."""

    format: str | None = option(None, "format of the files in the output folder (default: each input's own), or of "
                                "--output - (default: jsonl)",
                                choices=(*FORMATS, *(f"{kind}.gz" for kind in FORMATS[:3])), group=MANY)
    max_bad_rows: float = option(0.01, "share of rows that may be wrong, of all inputs: these get an empty label and a "
                                 "reason in the column error; with more of them nothing is labelled", minimum=0.0,
                                 maximum=1.0, group=MANY)
    shard: str | None = option(None, "label the i-th of n equal parts of every input, for job arrays; python -m "
                               "tools.join makes one file of the parts", metavar="I/N", group=MANY)
    engine: str = option("here", "here: this process; ray: workers of a Ray cluster, each on a GPU or on --threads "
                         "cores (pip install ray)", choices=("here", "ray"), group=MANY)
    workers: int = option(0, "workers for --engine ray (default: as many as the cluster has room for)", minimum=0,
                          maximum=100_000, group=MANY)
    address: str | None = option(None, "of a running Ray cluster, or auto (default: one is started here)",
                                 metavar="HOST:PORT", group=MANY)
    spool: str | None = option(None, "a folder on this machine for files that lie elsewhere (s3://..., hf://...; pip "
                               "install fsspec): inputs are fetched, and labels first written, there", metavar="DIR",
                               group=MANY)
    dry_run: bool = option(False, "label a random sample, say what all of it would take here (hours, memory, price), "
                           "and write nothing", group=MANY)
    prices: str | None = option(None, "table of prices for --dry-run (default: inference/prices.toml)", metavar="FILE",
                                group=MANY)
    api_seconds: float | None = option(None, "for --dry-run: seconds that an API takes for a post, as you measured "
                                       "them, to compare with", above=0.0, group=MANY)
    progress_json: str | None = option(None, "a file that says how far labelling has come, rewritten every few seconds",
                                       metavar="PATH", group=MANY)
    report: str | None = option(None, "a page on what was labelled (default: report.html in the output folder, where "
                                "there is one)", metavar="PATH", group=MANY)
    date_column: str | None = option(None, "column of the date, for the page's months (default: the first that is "
                                     "named as one)", metavar="NAME", group=MANY)

    means_several = False  # no field: an address that was fetched is a pattern or a folder
    pipes = False  # no field: the labels go to standard output

    def called(self, path: Path) -> str:
        """What the file of labels is called, which nobody finds by its path if it goes to standard output."""
        return "standard output" if self.pipes else str(path)

    def part(self) -> tuple[int, int] | None:
        """`--shard 2/4` as (2, 4). Raises `UserError`."""
        if self.shard is None:
            return None
        found = _SHARD.fullmatch(self.shard.strip())
        part = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= part[0] <= part[1]:
            raise UserError(f"--shard {self.shard}: is not I/N with I from 1 to N, such as 2/8")
        return part
