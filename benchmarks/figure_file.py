"""The file of a picture that a benchmark draws: checked before anything is measured, written whole at the end."""

from pathlib import Path

from common.errors import UserError
from common.files import atomic_write, check_file

PICTURES = (".png", ".svg", ".pdf")


def check_picture(path: str | None, others: dict[str, str | None]) -> None:
    """Raise `UserError` naming `--figure` where the picture, if one is asked for, could not be written to `path`.

    `others`: the files of other options, by option.
    """
    if path and Path(path).suffix not in PICTURES:
        raise UserError(f"--figure {path}: has no known format; give it a name with {', '.join(PICTURES)}")
    check_file(path, "--figure", others)


def save(figure, path: str) -> None:
    """Write the figure as its name says, completely or not at all."""
    with atomic_write(path, "wb") as handle:
        figure.savefig(handle, format=Path(path).suffix[1:], dpi=160)
