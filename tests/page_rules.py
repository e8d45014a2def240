"""What every page of the project holds to, read from its HTML alone: names, headings, tables, pictures, contrast.

    faults(text) -> ["table without a name", ...]        too_pale(css) -> ["--soft on --paper: 3.9", ...]
    too_alike(colours) -> ["--c1 and --c3, deuteranopia: 6.0", ...]

The rules are WCAG 2.2's (A and AA): language of the page (3.1.1), title (2.4.2), headings that nest (1.3.1), tables
whose cells know their titles (1.3.1), text in place of pictures (1.1.1), a name for whatever takes the focus (4.1.2),
nothing that only a mouse shows (2.1.1), and contrast (1.4.3).
"""

import itertools
import re
from html.parser import HTMLParser

import numpy
from matplotlib.colors import to_rgb

from report.colours import contrast

EMPTY = {"meta", "br", "img", "path", "use", "rect", "link", "hr", "input", "circle", "line"}


class Node:
    def __init__(self, name: str, attributes: dict, parent: "Node | None"):
        self.name, self.attributes, self.parent = name, attributes, parent
        self.children: list[Node] = []
        self.own = ""

    def every(self, *names: str) -> list["Node"]:
        """The elements of these names within, in their order."""
        found = [self] if self.name in names else []
        return found + [node for child in self.children for node in child.every(*names)]

    def all(self) -> list["Node"]:
        return [self, *(node for child in self.children for node in child.all())]

    @property
    def text(self) -> str:
        return self.own + "".join(child.text for child in self.children)

    @property
    def label(self) -> str:
        return (self.attributes.get("aria-label") or "").strip()


class Tree(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.root = self.at = Node("", {}, None)
        self.feed(text)

    def handle_starttag(self, name, attributes):
        node = Node(name, dict(attributes), self.at)
        self.at.children.append(node)
        if name not in EMPTY:
            self.at = node

    def handle_startendtag(self, name, attributes):
        self.at.children.append(Node(name, dict(attributes), self.at))

    def handle_endtag(self, name):
        if name not in EMPTY and self.at.parent:
            self.at = self.at.parent

    def handle_data(self, data):
        self.at.own += data


def faults(text: str) -> list[str]:
    """The rules that a page breaks, each with where."""
    root = Tree(text).root
    found = [] if [node.attributes.get("lang") for node in root.every("html")] == ["en"] else ["no language"]
    found += [] if root.every("title")[0].text.strip() else ["no title"]
    found += [f"{len(root.every(name))} of {name}" for name in ("main", "h1") if len(root.every(name)) != 1]
    levels = [int(node.name[1]) for node in root.every("h1", "h2", "h3", "h4", "h5", "h6")]
    found += [f"h{after} behind h{before}" for before, after in itertools.pairwise(levels)
              if after > before + 1]
    for node in root.all():
        if "title" in node.attributes:
            found.append(f"{node.name}: words that only a mouse shows")
        if node.attributes.get("tabindex") == "0" and not (node.label and node.attributes.get("role")):
            found.append(f"{node.name} takes the focus and has no name")
        if node.name == "svg" and node.attributes.get("aria-hidden") != "true" and not (
                node.attributes.get("role") in ("img", "application") and (node.label or node.every("title"))):
            found.append("picture without words")
        found += faults_of_table(node) if node.name == "table" else []
    return found


def faults_of_table(table: Node) -> list[str]:
    """Of a table: its name, titles of its columns and rows, and headings of rows in a part of their own."""
    name = table.label or "".join(node.text for node in table.every("caption"))
    found = [] if name else ["table without a name"]
    titles = [cell for head in table.every("thead") for cell in head.every("th")]
    if not titles or any(cell.attributes.get("scope") != "col" for cell in titles):
        found.append(f"{name}: columns without titles")
    found += [f"{name}: an empty title" for cell in table.every("th") if not cell.text.strip()]
    for part in table.every("tbody"):
        for number, row in enumerate(part.every("tr")):
            first = row.children[0]
            scope = first.attributes.get("scope")
            if first.name == "th" and scope != "row" and not (scope == "rowgroup" and number == 0):
                found.append(f"{name}: {first.text.strip()} heads neither its row nor its part")
            if not row.every("th") and re.search(r"[^\W\d]", first.text):
                found.append(f"{name}: {first.text.strip()} should head its row")
    return found


# Red, green and blue light as eyes without one kind of cone take it (Machado, Oliveira and Fernandes 2009, severity 1).
EYES = {"all cones": numpy.eye(3),
        "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                       [-0.003882, -0.048116, 1.051998]],
        "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                         [-0.011820, 0.042940, 0.968881]]}
XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]


def lab(colour, eyes: str) -> numpy.ndarray:
    """CIELAB of a colour (3,) as those eyes see it."""
    linear = numpy.array([c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)])
    x, y, z = numpy.array(XYZ) @ numpy.clip(numpy.array(EYES[eyes]) @ linear, 0, 1) / [0.95047, 1, 1.08883]
    x, y, z = (numpy.cbrt(v) if v > (6 / 29) ** 3 else v / (3 * (6 / 29) ** 2) + 4 / 29 for v in (x, y, z))
    return numpy.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def too_alike(colours: dict[str, str], least: float) -> list[str]:
    """The pairs of colours nearer to each other than `least` (CIE 1976) for some eyes; 2.3 can just be told apart."""
    return [f"{one} and {other}, {eyes}: {found:.1f}" for eyes in EYES
            for one, other in itertools.combinations(colours, 2)
            if (found := numpy.linalg.norm(lab(colours[one], eyes) - lab(colours[other], eyes))) < least]


def schemes(css: str) -> list[dict[str, str]]:
    """The colours that a style sheet names at its root, for light and for dark: {"--ink": "#1f2328", ...}."""
    roots = re.findall(r":root\s*\{([^}]*)\}", css)
    found: list[dict[str, str]] = []
    for root in roots:
        own = dict(re.findall(r"(--[\w-]+):\s*(#[0-9a-fA-F]{3,6})", root))
        if own:
            found.append((found[0] if found else {}) | own)
    return found


def too_pale(css: str, inks: dict[str, tuple[str, ...]], least: float) -> list[str]:
    """The pairs of `inks` (name: the grounds it stands on) with less contrast than `least`, in any colour scheme."""
    return [f"{ink} on {ground}: {found:.2f}" for colours in schemes(css) for ink, grounds in inks.items()
            for ground in grounds if (found := contrast(colours[ink], colours[ground])) < least]
