"""verify.py: the parts of this folder as one file that stands alone.

Each part is taken from its source, in the order of `PARTS`. The last one's docstring heads the file, that of each other
part stands over it as a comment; what the parts import from one another is left out, all else is imported once.
"""

import ast
import sys
from pathlib import Path

PARTS = ("weights", "way", "beside", "backward", "learning", "two", "check")


def program() -> str:
    """The text of verify.py."""
    imports, pieces, heading = {}, [], ""
    for name in PARTS:
        text = (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")
        tree = ast.parse(text)
        heading, first = ast.get_docstring(tree, clean=False), 0
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                first = node.end_lineno
                source = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                if not source.startswith(__package__):
                    imports[ast.unparse(node)] = source in sys.stdlib_module_names
        body = "\n".join(text.splitlines()[first:]).strip("\n")
        above = "".join(f"# {line}\n" for line in heading.strip().splitlines())
        above += "\n" + "\n" * body.startswith(("class ", "def "))
        pieces.append(body if name == PARTS[-1] else above + body)
    lines = sorted(imports, key=lambda line: (line.startswith("from"), line))
    standard, other = ("\n".join(line for line in lines if imports[line] is kind) for kind in (True, False))
    head = f'"""{heading}"""\n\n{standard}\n\n{other}\n'
    return "\n\n".join([head, "\n\n\n".join(pieces)]) + "\n"
