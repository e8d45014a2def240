"""Which files a job reads and writes: an output for each input, in a folder where there are several, whole or in parts.

A part of a job (`--shard 2/8`) writes the plain rows of its part of each input, and `tools.join` makes of them the file
that one process would have written:

    labels/tweets.csv.gz        the file
    labels/tweets.2-of-8.csv    the second of its eight parts
"""

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bulk.manifest import check_again, manifest_path
from common.errors import UserError
from common.files import check_place, find_path, place_key
from common.reading import open_plain
from data.growing import is_ending, was_stopped
from data.inputs import STDIN, expand, outputs_for, spooled
from data.writers import OUTPUT_FORMATS, check_format, plain_format

PROGRESS, PAGE = '{\n  "done": ', "<title>What was labelled</title>"  # how the two files beside the labels begin


@dataclass(frozen=True)
class Job:
    """One input and where its labels go; `path` is what this process writes, `output` what there is in the end."""

    source: Path
    output: Path
    part: tuple[int, int] | None = None

    @property
    def path(self) -> Path:
        return self.output if self.part is None else part_path(self.output, *self.part)

    def rows(self, total: int) -> range:
        """Which of so many rows are this job's: equal parts to within a row, in the input's order."""
        if self.part is None:
            return range(total)
        number, parts = self.part
        return range(total * (number - 1) // parts, total * number // parts)


def part_path(output: Path, number: int, parts: int) -> Path:
    """`part_path("a.csv.gz", 2, 8) -> "a.2-of-8.csv"`."""
    name = output.name.removesuffix(".gz") if output.name.lower().endswith(".gz") else output.name
    return output.with_name(f"{Path(name).stem}.{number}-of-{parts}{plain_format(output)}")


@contextmanager
def jobs(options, run: Path, stdin: BinaryIO) -> Iterator[tuple[list[Job], Path | None]]:
    """The jobs that the options mean, and the folder of their outputs where they have one; standard input lies in a
    file as long as the block lasts. Raises `UserError`."""
    files, part = expand(options.input), options.part()
    if STDIN in files:
        if len(files) > 1:
            raise UserError("--input -: standard input goes alone; label the files in a call of their own")
        if part or options.format:
            raise UserError("--input -: goes with neither --shard nor --format; name the --output file")
        with spooled(stdin) as source:
            yield [Job(source, one_output(options, run, "stdin.jsonl"))], None
    elif len(files) == 1 and not (part or options.format or options.means_several or _means_several(options.input)):
        yield [Job(files[0], one_output(options, run, files[0].name))], None
    elif options.pipes:
        raise UserError("--output -: takes the labels of one file; of several, name the folder for theirs")
    else:
        folder = Path(options.output) if options.output else run / "labels"
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--output {folder}: is a file; of several inputs, name a folder")
        if not folder.exists() and has_known_end(folder):
            raise UserError(f"--output {folder}: of several inputs, or with --format or --shard, a folder is made; "
                            "name one that does not end like a file")
        if any(find_path(name).is_dir() and folder.exists() and find_path(name).samefile(folder)
               for name in options.input):
            raise UserError(f"--output {folder}: is the folder of the inputs, so the next call would take the labels "
                            "for posts; choose another one")
        if part and not options.output:
            raise UserError("--shard: needs --output DIR, the folder of the parts")
        outputs = outputs_for(files, folder, options.format)
        found = [Job(source, output, part) for source, output in zip(files, outputs, strict=True)]
        written: dict[str, Path] = {}
        for job in found:
            if (other := written.setdefault(place_key(job.path), job.source)) != job.source:
                raise UserError(f"--shard: {other} and {job.source} would both become {job.path}; rename one of them")
        yield found, folder


def has_known_end(path: Path) -> bool:
    """Whether a name ends as that of a file of labels does."""
    return path.name.lower().removesuffix(".gz").endswith(OUTPUT_FORMATS)


def one_output(options, run: Path, name: str) -> Path:
    """Where the labels of one input go: as the option says, or into the run."""
    kind = "" if name.lower().removesuffix(".gz").endswith(OUTPUT_FORMATS[:3]) else OUTPUT_FORMATS[0]
    return Path(options.output) if options.output else run / f"labels-{name}{kind}"


def _means_several(names: list[str]) -> bool:
    """Whether a folder or a pattern was named, which may hold one file today and two tomorrow."""
    return any(find_path(name).is_dir() or (glob.has_magic(name) and not find_path(name).exists()) for name in names)


def check_beside(options, found: list[Job], folder: Path | None) -> None:
    """Refuse a --progress-json and a --report in the place of an input, of an output, of one another, or of any file
    that is none of its kind: both are written anew each time."""
    taken = {place_key(path): f"what labels are made {word}" for job in found
             for path, word in ((job.source, "of"), (job.output, "into"), (job.path, "into"))}
    page = options.report or (folder / "report.html" if folder is not None and not options.part() else None)
    for option, path, begins in (("--progress-json", options.progress_json, PROGRESS), ("--report", page, PAGE)):
        if path is None:
            continue
        check_place(path, option)
        what = taken.setdefault(place_key(path), f"that of {option}")
        if what != f"that of {option}":
            raise UserError(f"{option} {path}: is {what}; choose another name")
        check_kind(path, option, begins, options.overwrite)


def check_kind(path: str | Path, option: str, begins: str, overwrite: bool) -> None:
    """Refuse a place that another file has than one that `begins` so, unless `overwrite`."""
    if not Path(path).exists() or overwrite:
        return
    with open_plain(path) as handle:
        if begins.encode() not in handle.read(1000):
            raise UserError(f"{option} {path}: exists and was not written as such; choose another name, or give "
                            "--overwrite")


def check_output(job: Job, options) -> None:
    """Refuse an unknown format, the input itself, and an output that is already there, complete or in part; one in the
    run, where --output names none, may be made anew from the same input."""
    output, source = job.path, job.source
    check_format(job.output)
    options.check_sheet(job.output)
    check_place(output, "--output")
    if output.is_dir():
        raise UserError(f"--output {output}: is a folder; name a file")
    if output.exists() and source.exists() and output.samefile(source):
        raise UserError(f"--output {output}: is the input file; choose another name")
    goes_on = options.resume and (is_ending(output) or was_stopped(output))  # also one that was to replace another
    is_whole = output.exists() and not goes_on
    if is_whole and not options.overwrite and options.output is None:
        check_again(manifest_path(output.parent, job.part), output, source)
    elif is_whole and not options.overwrite:
        or_on = "" if options.resume or not manifest_path(output.parent, job.part).exists() else (
            ", or --resume, which leaves what is done")
        found = "exists, and nothing was stopped on the way to it" if options.resume else "exists"
        raise UserError(f"--output {output}: {found}; choose another name or give --overwrite{or_on}")
    if was_stopped(output) and not options.overwrite and not options.resume:
        raise UserError(f"--output {output}: labelling into it was stopped; --resume continues it, --overwrite "
                        "starts again")
