"""Whatever rows a file holds, each comes out once and in order, with its label or a reason, and with the user's own
columns as they were; in parts and after interruptions, too. Rows are drawn by hypothesis (tests/bulk/any_rows.py).

Deliberate break: in bulk/rows.py leave out `while own in row`; in data/growing.py let `add` count no bytes, or in
bulk/places.py let `Job.rows` begin a row late.
"""

import csv
import gzip
import json
import tempfile
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

hypothesis = pytest.importorskip("hypothesis", reason="needs hypothesis")

import classify  # noqa: E402
from data.writers import FORMULA  # noqa: E402
from inference import labeller  # noqa: E402
from tests.bulk.any_rows import CELL, File, Row, answer_at_once, frames, objects, tables  # noqa: E402
from tests.programs.hostile import call, in_an_empty_folder, shared_world  # noqa: E402, F401
from tools import join  # noqa: E402

given, st = hypothesis.given, hypothesis.strategies
HAS_ARROW = find_spec("pyarrow") is not None
OUTPUTS = st.sampled_from([".csv", ".csv.gz", ".tsv", ".jsonl", ".jsonl.gz", *([".parquet"] if HAS_ARROW else [])])


LINES = ("a", '"', "\r\n", "\n", ",", "\t", "移", "=1+1 ", "👩‍👩‍👧", "words ")


# However busy the machine is, and nothing is kept for the next time.
PATIENT = {"deadline": None, "database": None,
           "suppress_health_check": [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large]}


def few(count: int):
    """The same examples each time, and so many."""
    return hypothesis.settings(max_examples=count, derandomize=True, **PATIENT)


def many(count: int):
    """Others each time; `pytest --hypothesis-seed 1` draws the same again."""
    return lambda test: pytest.mark.slow(hypothesis.settings(max_examples=count, **PATIENT)(test))


@pytest.fixture(scope="module")
def prompt(shared_world):  # noqa: F811
    """The run's prompt, where the model is opened once and answers at once."""
    ready, kept = classify.ready, []

    def once(*words):
        kept.extend(() if kept else [ready(*words)])
        return kept[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classify, "ready", once)
        patch.setattr(labeller.Labeller, "give", answer_at_once)
        patch.setattr(labeller, "WINDOW", 2)
        options = classify.parse_options(classify.ClassifyOptions, ["--threads", "1"], program="", description="")
        yield once(classify.finished_run(str(shared_world.run)), options, [])[1]


@contextmanager
def folder():
    """An empty folder; hypothesis draws many examples within one test."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def label(world, source: Path, output: Path, *more) -> None:
    """Label one file."""
    ended = call(classify.main, *words(world, source, output), *more)
    assert ended.code == 0, ended.err


def words(world, source: Path, output: Path) -> list:
    return ["--run", world.run, "--threads", "1", "--max-bad-rows", "1", "--input", source, "--output", output]


def read(path: Path) -> list[dict]:
    """The rows of an output, by csv or json alone."""
    if path.suffix == ".parquet":
        return import_module("pyarrow.parquet").read_table(path).to_pylist()
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as handle:
        if ".jsonl" in path.name:
            return [json.loads(line) for line in handle]
        table = list(csv.reader(handle, delimiter="\t" if ".tsv" in path.name else ",", strict=True))
    assert len(set(table[0])) == len(table[0]) and {len(row) for row in table} == {len(table[0])}
    return [dict(zip(table[0], row, strict=True)) for row in table[1:]]


def by_pandas(path: Path, delimiter: str) -> list[dict] | None:
    """The same as pandas has them; None where it is not installed."""
    if find_spec("pandas") is None:
        return None
    return import_module("pandas").read_csv(path, sep=delimiter, dtype=str, keep_default_na=False).to_dict("records")


def by_arrow(path: Path, delimiter: str) -> list[dict] | None:
    """The same as pyarrow has them, which is told of line breaks in cells; None where it is not installed."""
    if not HAS_ARROW:
        return None
    arrow = import_module("pyarrow.csv")
    found = arrow.read_csv(path, parse_options=arrow.ParseOptions(delimiter=delimiter, newlines_in_values=True),
                           convert_options=arrow.ConvertOptions(column_types=dict.fromkeys(read(path)[0], "string")))
    return found.to_pylist()


def hold(found: list[dict], rows: list[Row], is_table: bool, is_safe: bool = False) -> None:
    """Each row of an output against what it has to be."""
    assert len(found) == len(rows)

    def written(value: str | None) -> str | None:
        if not is_table:
            return value
        return f"'{value}" if is_safe and value and value.lstrip("\t\r\n ")[:1] in FORMULA else value or ""

    rows = [Row(None, one.reason) if one.is_open and one.reason in (row["error"] or "") else one
            for row, one in zip(found, rows, strict=True)]
    names = sorted(dict.fromkeys(name for row in rows for name in row.own), key=lambda name: name != "label")
    columns = list(found[0])
    ours = columns[: len(columns) - len(names)]
    assert ours[:5] == ["id", "language", "predicted", "probability", "error"] and ours[-1] == "p_related"
    for name in names:
        while name in ours:
            name = f"input_{name}"
        ours.append(name)
    assert columns == [written(name) for name in ours]
    for row, one in zip(found, rows, strict=True):
        assert (row["predicted"] or None) == one.label and (one.label is None) == bool(row["error"]), (row, one)
        assert one.is_open or one.reason in (row["error"] or ""), (row, one)
        assert one.id is None or row["id"] == written(one.id), (row, one)
        assert row["language"] == written(one.language), (row, one)
        own = [row[column] for column in columns[len(columns) - len(names) :]]
        assert own == [written(one.own.get(name)) for name in names], (row, one)


def labelled(world, prompt, file: File, kind: str, is_safe: bool) -> None:
    """Label a drawn file into one of a kind, and hold that against what its rows are."""
    is_table = kind[:4] in (".csv", ".tsv")
    is_safe = is_safe and is_table
    with folder() as here:
        output = here / f"labels{kind}"
        label(world, file.write(here), output, *file.words, *(["--safe-cells", "--bom"] if is_safe else []))
        assert output.suffix == ".gz" or output.read_bytes().startswith(b"\xef\xbb\xbf") == is_safe
        assert sorted(here.iterdir()) == sorted([output, here / file.name])
        found = read(output)
        hold(found, file.rows(prompt), is_table, is_safe)
        if is_table:
            for read_by in (by_pandas, by_arrow):
                assert read_by(output, "\t" if ".tsv" in kind else ",") in (found, None), read_by


def stopped(world, file: File, kind: str, windows: int, parts: int) -> None:
    """Stop behind some windows and go on; label in parts, each stopped as well, and join: the bytes are the same."""
    with folder() as here:
        source = file.write(here)
        label(world, source, here / f"whole{kind}", *file.words)
        whole = (here / f"whole{kind}").read_bytes()
        at_once = [*words(world, source, here / f"labels{kind}"), *file.words, "--resume"]
        interrupted(at_once, windows)
        assert (here / f"labels{kind}").read_bytes() == whole
        for number in range(1, parts + 1):
            interrupted([*words(world, source, here / "parts"), *file.words, "--resume", "--format", kind[1:],
                         "--shard", f"{number}/{parts}"], windows)
        ended = call(join.main, "--folder", here / "parts")
        assert ended.code == 0 and (here / "parts" / f"posts{kind}").read_bytes() == whole, ended.err


def interrupted(command: list, windows: int) -> None:
    """A command that Ctrl-C ends behind some windows, if it takes more, and that is then given again."""
    given = labeller.Labeller.label

    def label(self, posts):
        for number, window in enumerate(given(self, posts)):
            if number == windows:
                raise KeyboardInterrupt
            yield window

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labeller.Labeller, "label", label)
        ended = call(classify.main, *command)
    assert ended.code in (0, 130), ended.err
    if ended.code:
        ended = call(classify.main, *command)
        assert ended.code == 0 and ("were labelled before" in ended.out) == (windows > 0), ended.err


LONG = tables(CELL | st.sampled_from(LINES).map(lambda piece: piece * (2**20 // len(piece.encode()))), most=2)
FILES = tables() | objects() | (frames() if HAS_ARROW else st.nothing())
STOPS = {"file": FILES, "kind": OUTPUTS, "windows": st.integers(0, 3),
         "parts": st.integers(1, 3)}


@few(60)
@given(file=FILES, kind=OUTPUTS, is_safe=st.booleans())
def test_every_row_comes_out_once_with_what_it_held(shared_world, prompt, file, kind, is_safe):  # noqa: F811
    labelled(shared_world, prompt, file, kind, is_safe)


@few(8)
@given(**STOPS)
def test_stopped_and_joined_it_has_the_same_bytes(shared_world, prompt, file, kind, windows, parts):  # noqa: F811
    stopped(shared_world, file, kind, windows, parts)


@few(3)
@given(file=LONG, kind=OUTPUTS, is_safe=st.booleans())
def test_cells_of_a_megabyte(shared_world, prompt, file, kind, is_safe):  # noqa: F811
    labelled(shared_world, prompt, file, kind, is_safe)


@many(1000)
@given(file=FILES, kind=OUTPUTS, is_safe=st.booleans())
def test_many_more_rows(shared_world, prompt, file, kind, is_safe):  # noqa: F811
    labelled(shared_world, prompt, file, kind, is_safe)


@many(200)
@given(**STOPS)
def test_many_more_stops(shared_world, prompt, file, kind, windows, parts):  # noqa: F811
    stopped(shared_world, file, kind, windows, parts)
