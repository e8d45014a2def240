"""Notebooks from the chapters' scripts: a notebook is a JSON file, and its cells are what stands between `# %%` lines.

    # %% [markdown]        a cell of text; its lines begin with "# "
    # %%                   a cell of code

The format is nbformat 4.5 (nbformat.readthedocs.io); nothing is executed here, so the cells come without outputs.
"""

import ast
import json
from pathlib import Path

from common.files import atomic_write

MARK, TEXT = "# %%", "# %% [markdown]"


def cells(source: str) -> list[tuple[str, str]]:
    """A script as ("markdown" or "code", text) in order; the docstring at its head becomes the first text."""
    found, kind, lines = [], "code", []

    def close():
        text = "\n".join(lines).strip("\n")
        if text:
            found.append((kind, _uncommented(text) if kind == "markdown" else text))

    for line in source.splitlines():
        if line.startswith(MARK):
            close()
            kind, lines = ("markdown" if line.startswith(TEXT) else "code"), []
        else:
            lines.append(line)
    close()
    docstring = ast.get_docstring(ast.parse(source))
    if docstring:
        found[0] = ("markdown", "# " + docstring)
    return found


def _uncommented(text: str) -> str:
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in text.splitlines())


def notebook(source: str) -> dict:
    """The notebook of a script, as the object that its file holds."""
    made = []
    for number, (kind, text) in enumerate(cells(source)):
        cell = {"id": f"cell-{number}", "cell_type": kind, "metadata": {}, "source": text.splitlines(keepends=True)}
        made.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": made}


def write_notebook(script: Path, folder: Path) -> Path:
    """Write the notebook of `script` into `folder`; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{script.stem}.ipynb"
    text = json.dumps(notebook(script.read_text(encoding="utf-8")), ensure_ascii=False, indent=1) + "\n"
    with atomic_write(path) as file:
        file.write(text)
    return path
