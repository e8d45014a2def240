"""One file of the parts that `classify.py --shard` wrote, and a page on them; refused where a part is missing.

    python -m tools.join --folder labels

The parts of a job array lie in one folder, each with a manifest of what is done. If all are there, were made from the
same run, input and arithmetic, and hold every row once, each input gets the file that one process would have written,
byte for byte, and the parts are removed (--keep-parts keeps them). If a file of other rows is there already,
it is left as it is, and a line says so (--overwrite replaces it).
"""

from dataclasses import dataclass
from pathlib import Path

from bulk.joined import join_all
from bulk.manifest import manifest_path, settled
from bulk.page import write_page
from bulk.places import PAGE, check_kind
from common.errors import UserError, run_program
from common.options import option, parse_options


@dataclass
class JoinOptions:
    """Options of joining."""

    folder: str | None = option(None, "the folder of the parts: --output of classify.py --shard", metavar="DIR")
    keep_parts: bool = option(False, "leave the parts where they are")
    overwrite: bool = option(False, "replace a file that is no join of these parts")
    date_column: str | None = option(None, "column of the date, for the page's months", metavar="NAME")


def main(argv: list[str]) -> None:
    """Check, join, count."""
    options = parse_options(JoinOptions, argv, program="python -m tools.join", description=__doc__)
    if options.folder is None or not Path(options.folder).is_dir():
        raise UserError(f"--folder {options.folder or ''}: is no folder; name that of the parts")
    folder = Path(options.folder)
    check_kind(folder / "report.html", "--folder", PAGE, options.overwrite)
    with settled(manifest_path(folder)):
        for path in join_all(folder, options.keep_parts, options.overwrite):
            print(f"labels: {path}")
    write_page(folder / "report.html", folder, options.date_column)


if __name__ == "__main__":
    run_program(main)
