"""Call every reader of files with damaged and hostile ones, and list what ended otherwise than in success or a line.

    python -m tests.fuzz --minutes 30
    python -m tests.fuzz --reader run.json --reader state.pt --minutes 2 --seed 7
    python -m tests.fuzz --reader run.json --replay findings/run.json-KeyError-1.input
"""

import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from common.errors import UserError, closest, run_program
from common.files import check_place
from common.options import option, parse_options
from common.terminal import table

ENOUGH = 10_000  # executions that every reader should have, the slow ones too


@dataclass
class FuzzOptions:
    """Options of one round."""

    minutes: float = option(3.0, "for all readers together", above=0)
    reader: list[str] = option((), "these readers only (default: all)", metavar="NAME")
    seed: int = option(0, "seed of the mutations", minimum=0)
    out: str = option("findings", "folder that findings are written into", metavar="DIR")
    seconds: float = option(5.0, "processor time that one call may take", above=0)
    megabytes: int = option(512, "memory that one call may take", minimum=64)
    engine: str = option("auto", "how inputs are chosen: by libFuzzer where atheris is installed, or by a seeded draw",
                         choices=("auto", "atheris", "seeded"))
    replay: str | None = option(None, "call one reader once, with this file, and let its error through", metavar="FILE")


def main(argv: list[str]) -> None:
    """Fuzz, print a table, and end with an error where there are findings."""
    from tests.fuzz.worker import Limits, Tally, fuzz

    options = parse_options(FuzzOptions, argv, program="python -m tests.fuzz", description=__doc__)
    engine = options.engine if options.engine != "auto" else "atheris" if find_spec("atheris") else "seeded"
    names = chosen(list(options.reader))
    if options.replay:
        replay(names, Path(options.replay))
        return
    out = Path(options.out)
    check_place(out / "x", "--out")
    limits, tallies = Limits(options.seconds, options.megabytes), [Tally(name) for name in names]
    for share in (equal_shares, fair_shares):
        for tally, seconds in zip(tallies, share(tallies, 60 * options.minutes), strict=True):
            fuzz(tally, seconds, options.seed, limits, out, engine)
    for tally in tallies:
        for kind, count in tally.kinds.items():
            print(f"{tally.name}: {kind} ({count:,})")
    print(table(["reader", "executions", "taken", "findings", "a second"],
                [[tally.name, f"{tally.calls:,}", f"{tally.taken:,}", f"{tally.findings:,}",
                  f"{tally.calls / max(tally.seconds, 1e-9):,.0f}"] for tally in tallies]))
    print(f"  {engine}, seed {options.seed}; {sum(tally.calls for tally in tallies):,} executions")
    if findings := sum(tally.findings for tally in tallies):
        raise UserError(f"{findings:,} findings; the files and reasons are in {out}")


def equal_shares(tallies: list, seconds: float) -> list[float]:
    """A quarter of the time, in equal parts: it shows how fast each reader is."""
    return [seconds / 4 / len(tallies)] * len(tallies)


def fair_shares(tallies: list, seconds: float) -> list[float]:
    """The rest: first what each needs to come to `ENOUGH` executions, as far as the time goes, then equal parts."""
    needs = [max(0, ENOUGH - tally.calls) * tally.seconds / max(tally.calls, 1) for tally in tallies]
    rest = seconds * 3 / 4
    scale = min(1.0, rest / max(sum(needs), 1e-9))
    return [need * scale + max(0.0, rest - sum(needs)) / len(tallies) for need in needs]


def chosen(wanted: list[str]) -> list[str]:
    """The names of the readers to call. Raises `UserError` for one that is not there."""
    known = reader_names()
    for name in wanted:
        if name not in known:
            raise UserError(f"--reader {name}: there is no such reader{closest(name, known)}; there are "
                            f"{', '.join(known)}")
    return wanted or known


def reader_names() -> list[str]:
    """All names. Each reader is imported in its own process: this one must not have begun threads."""
    from tests.fuzz.readers import READERS

    return list(READERS)


def replay(names: list[str], path: Path) -> None:
    """One call in this process."""
    from tests.fuzz.readers import READERS

    if len(names) != 1:
        raise UserError("--replay: needs one --reader, the one that the file is for")
    reader = READERS[names[0]]
    with tempfile.TemporaryDirectory() as folder:
        place = reader.make(Path(folder))
        place.write_bytes(path.read_bytes())
        reader.read(place)
    print("taken")


if __name__ == "__main__":
    run_program(main, sys.argv[1:])
