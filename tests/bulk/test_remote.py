"""Inputs and outputs on fsspec's file systems: the bytes of local files, fetched once, put when they are whole.

Deliberate break: in bulk/remote.py let `_fetched` say that a file is there whatever its state, or `put` take the files
that begin with a dot.
"""

from pathlib import Path

import pytest

import classify
from bulk import remote
from common.errors import UserError
from tests.programs.hostile import call as run
from tests.programs.hostile import in_an_empty_folder, jsonl, post_rows, refused, shared_world, words, world  # noqa: F401


@pytest.fixture
def memory():
    fsspec = pytest.importorskip("fsspec", reason="needs fsspec")
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True) if system.exists("/archive") else None


def test_a_folder_elsewhere_is_labelled_as_one_here(world, tmp_path, memory, monkeypatch):  # noqa: F811
    (tmp_path / "in").mkdir()
    for number in range(2):
        path = jsonl(tmp_path / "in" / f"f{number}.jsonl", post_rows(start=20 * number, count=3))
        memory.pipe_file(f"/archive/{path.name}", path.read_bytes())
    assert run(classify.main, *words(world, "--input", "in", "--output", "out")).code == 0
    there = words(world, "--input", "memory://archive", "--output", "memory://labels", "--spool", "spool", "--resume")
    ended = run(classify.main, *there)
    assert ended.code == 0 and ended.out.count("put: ") == 4, ended.err
    for name in ("f0.jsonl", "f1.jsonl"):
        assert memory.cat_file(f"/labels/{name}") == Path("out", name).read_bytes()
    got = []
    monkeypatch.setattr(memory, "get_file", lambda *args: got.append(args))
    ended = run(classify.main, *there)
    assert ended.code == 0 and ended.out.count("is there already") == 2 and not got, ended.err


def test_one_file_and_a_pattern(world, tmp_path, memory):  # noqa: F811
    path = jsonl(tmp_path / "a.jsonl", post_rows(count=3))
    memory.pipe_file("/archive/a.jsonl", path.read_bytes())
    assert run(classify.main, *words(world, "--input", "memory://archive/*.jsonl", "--output", "pattern")).code == 0
    to = ("--output", "memory://labels/a.csv.gz", "--spool", "s")
    ended = run(classify.main, *words(world, "--input", "a.jsonl", *to))
    assert ended.code == 0 and memory.exists("/labels/a.csv.gz"), ended.err
    refused(classify.main, *words(world, "--input", "memory://archive/none*.csv", "--output", "x"), says="no such file")
    refused(classify.main, *words(world, "--input", "a.jsonl", "--output", "memory://labels"), says="needs --spool")
    refused(classify.main, *words(world, "--input", "nothing://a", "--output", "x"), says="nothing://a")


def test_without_fsspec_it_is_one_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(UserError, match="needs fsspec"):
        remote.fetch("s3://bucket/a.csv", Path("spool"))


@pytest.mark.parametrize("address", ["ftp://me:mine@127.0.0.1:9/a.csv", "s3://me:mine@bucket/a.csv",
                                     "https://mine@host/a.csv", "nothing://host/a.csv?sig=mine"])
@pytest.mark.parametrize("option", ["--input", "--output"])
def test_no_password_of_an_address_is_in_an_errors_line(world, address, option):  # noqa: F811
    """Deliberate break: in bulk/remote.py let `hidden` return its text."""
    pytest.importorskip("fsspec", reason="needs fsspec")
    other = ["--input", world.test, "--spool", "spool"] if option == "--output" else ["--output", "labels.csv"]
    line = refused(classify.main, *words(world, option, address, *other))
    assert "mine" not in line and address.partition("://")[0] in line and "a.csv" in line
    assert remote.hidden("hf://datasets/me/posts@main/a?.csv") == "hf://datasets/me/posts@main/a?.csv"


@pytest.fixture
def bucket(monkeypatch):
    """A bucket of a local moto server, and s3fs's view of it."""
    s3fs = pytest.importorskip("s3fs", reason="needs s3fs")
    server = pytest.importorskip("moto.server", reason="needs moto[server]").ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY":
                        "b", "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    system.mkdir("archive")
    yield system
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_a_bucket_of_s3_is_labelled_as_a_folder_here(world, tmp_path, bucket):  # noqa: F811
    """Deliberate break: in bulk/remote.py leave the file's state out of `_fetched`, or `put` a folder as one file."""
    (tmp_path / "in").mkdir()
    for number in range(2):
        path = jsonl(tmp_path / "in" / f"f{number}.jsonl", post_rows(start=20 * number, count=3))
        bucket.pipe_file(f"archive/2024/{path.name}", path.read_bytes())
    assert run(classify.main, *words(world, "--input", "in", "--output", "out", "--format", "csv.gz")).code == 0
    there = words(world, "--input", "s3://archive/2024", "--output", "s3://archive/labels", "--spool", "spool",
                  "--format", "csv.gz", "--resume")
    ended = run(classify.main, *there)
    assert ended.code == 0 and ended.out.count("put: s3://archive/labels/") == 4, ended.err
    for name in ("f0.csv.gz", "f1.csv.gz"):
        assert bucket.cat_file(f"archive/labels/{name}") == Path("out", name).read_bytes()
    ended = run(classify.main, *there)
    assert ended.code == 0 and ended.out.count("is there already") == 2, ended.err
    bucket.pipe_file("archive/2024/f1.jsonl", path.read_bytes() + b'{"id": "more", "text": "one more"}\n')
    bucket.invalidate_cache()
    refused(classify.main, *there, says=("f1.csv.gz was made from another input", "--overwrite"), under=tmp_path / "in")
    refused(classify.main, *words(world, "--input", "s3://archive/none/*.csv", "--output", "x"), says="no such file")
    refused(classify.main, *words(world, "--input", "s3://none/a.csv", "--output", "x"), says="s3://none/a.csv")
    refused(classify.main, *words(world, "--input", "in", "--output", "s3://none/labels", "--spool", "other"),
            says="--output s3://none/labels: there is no bucket none")
    assert bucket.ls("") == ["archive"]
    bucket.rm("archive", recursive=True)
    Path("spool/labels/f1.csv.gz").touch()
    with pytest.raises(UserError, match=r"could not be put there .* whole in spool/labels, and the same command with"):
        remote.put(Path("spool/labels"), "s3://archive/labels")
