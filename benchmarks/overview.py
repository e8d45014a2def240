"""The README's picture: how one invented post goes from its text to its label, with the file for each step.

    python -m benchmarks.overview --out docs/overview.png

Every number in it is computed here, with the base and the run that the project ships; the PNG carries them as JSON
under "Description", so that a test can see whether the picture is still true. A unit of the drawing is a pixel of a
narrow phone: 8 points here are 8 pixels there. Blue is frozen, orange is learned.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from benchmarks.plots import INK, OURS, STYLE, USUAL
from common.errors import run_program
from common.files import atomic_write
from common.options import option, parse_options
from data.batching import make_batch, shared_prefix
from finetune.run_folder import RunFolder
from inference.run import SHIPPED_RUN, open_model
from lora.layer import LoRALinear

POST = "Depuis que les familles de réfugiés sont là, notre village revit."
WIDTH, PIXELS, SMALL, MONO = 390, 1600, 8, "DejaVu Sans Mono"
GREY, CARD, LINE, PALE, BROWN = "#57606a", "#f3f6fa", "#c9d1d9", "#d3e5f2", "#8a5a00"


@dataclass
class PictureOptions:
    """Options of this program."""

    out: str = option("docs/overview.png", "file of the picture", metavar="FILE")


@dataclass(frozen=True)
class Facts:
    """What the picture says about one post."""

    text: str
    before: str  # what stands before the post in the prompt, its last line
    behind: str  # what stands behind it, up to the label
    tokens: list[tuple[str, int]]  # of the post as it stands in the prompt: text and id of each
    prefix: int  # ids that all prompts begin with
    ids: int  # of the whole row; the label is read at the last one
    layers: int
    linears: int  # in a layer
    hidden: int
    shape: tuple[int, int]  # of the linear that is drawn: out, in
    rank: int
    scaling: float
    learned: int  # numbers that training moved
    corner: list[list[int]]  # codes 0..15 of the first weights of a layer's q_proj
    labels: list[tuple[str, str]]  # symbol and name
    logits: list[float]
    probabilities: list[float]


def main(argv: list[str]) -> None:
    """Compute and draw."""
    options = parse_options(PictureOptions, argv, program="python -m benchmarks.overview", description=__doc__)
    found = facts()
    with matplotlib.rc_context(STYLE), atomic_write(Path(options.out), "wb") as handle:
        draw(found).savefig(handle, format="png", dpi=72 * PIXELS / WIDTH, facecolor="white",
                            metadata={"Description": json.dumps(asdict(found)), "Software": None})
    print(options.out)


@torch.inference_mode()
def facts(text: str = POST) -> Facts:
    """What the shipped run does with one post, step by step as in `inference.labeller`."""
    run = RunFolder.open(SHIPPED_RUN)
    model, prompt = open_model(run, model=None, device=torch.device("cpu"), dtype=torch.float32, cache=None)
    row = prompt.encode(text)
    shared = shared_prefix(prompt.prefix_ids, [row])
    end = next(place for place in range(shared, len(row.ids)) if row.ids[place] in prompt.tokenizer.eos_ids)
    batch = make_batch([row], [0], shared, model.fill_to)
    logits = model.label_logits(model.answer_hidden(batch), torch.tensor(prompt.label_ids))[0]
    linears = [module for module in model.model.layers[0].modules() if isinstance(module, LoRALinear)]
    packed = linears[0].base.packed
    places = torch.stack([packed >> 4, packed & 15], dim=1).view(linears[0].out_features, -1)
    before, behind = prompt.text.split("{post}")
    return Facts(
        text, before.splitlines()[-1].removesuffix('"'), behind.splitlines()[-1].split("{symbol}")[0],
        [(prompt.tokenizer.token_bytes(id).decode("utf-8", "replace"), id) for id in row.ids[shared:end]],
        shared, len(row.ids), model.config.num_hidden_layers, len(linears), model.config.hidden_size,
        (linears[0].out_features, linears[0].in_features), linears[0].r, linears[0].scaling,
        sum(p.numel() for name, p in model.named_parameters() if "lora_" in name), places[:16, :16].tolist(),
        list(zip(prompt.codebook.symbols, prompt.codebook.labels, strict=True)), logits.tolist(),
        logits.softmax(-1).tolist(),
    )  # fmt: skip


def draw(found: Facts) -> Figure:
    """The picture, from the post at the top to the probabilities at the bottom."""
    height = 427
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.axis("off")
    in_the_prompt(ax, found, 8)
    down(ax, 73, "")
    token_ids(ax, found, 89)
    down(ax, 182, f"{found.ids} vectors of {found.hidden} numbers")
    layers(ax, found, 198)
    down(ax, 310, f"at the last id: 1 vector of {found.hidden} numbers")
    labels(ax, found, 326)
    ax.set(xlim=(0, WIDTH), ylim=(height, 0))
    return figure


def card(ax: Axes, top: float, bottom: float, title: str, file: str) -> None:
    """A pale field over the full width with its title and, at the right, the file that holds the step."""
    rounded(ax, 8, top, WIDTH - 16, bottom - top, CARD, LINE)
    write(ax, 17, top + 13, title, 10, weight="bold")
    name(ax, WIDTH - 16, top + 13, file)


def rounded(ax: Axes, x: float, y: float, width: float, height: float, colour: str, edge: str = "none") -> None:
    ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=4", fc=colour, ec=edge,
                                lw=0.7))


def write(ax: Axes, x: float, y: float, words: str, size: float = SMALL, **how):
    return ax.text(x, y, words, **({"size": size, "va": "center", "ha": "left"} | how))


def name(ax: Axes, x: float, y: float, file: str, ha: str = "right"):
    return write(ax, x, y, file, family=MONO, color=OURS, ha=ha)


def down(ax: Axes, y: float, words: str) -> None:
    """A short arrow between two cards, and what goes along it."""
    ax.annotate("", (WIDTH / 2, y + 15), (WIDTH / 2, y + 1),
                arrowprops={"arrowstyle": "-|>,head_width=.22,head_length=.4", "color": GREY, "lw": 1, "shrinkA": 0,
                            "shrinkB": 0})
    write(ax, WIDTH / 2 + 9, y + 7.5, words, color=GREY)


def in_the_prompt(ax: Axes, found: Facts, top: float) -> None:
    """The end of the prompt in grey, the post in it in black."""
    card(ax, top, top + 65, "A post in its prompt", "data/prompt.py")
    write(ax, 17, top + 27, f"… {found.before}", color=GREY)
    write(ax, 17, top + 41, f'"{found.text}"', 9)
    write(ax, 17, top + 54.5, found.behind, color=GREY)


def token_ids(ax: Axes, found: Facts, top: float) -> None:
    """The first tokens of the post, and the row to scale: the prefix that all posts share, the post, the rest."""
    card(ax, top, top + 93, "To token ids", "model/tokenizer/")
    x = 17
    for token, id in found.tokens:
        token = token.replace(" ", "␣")
        wide = 4.82 * max(len(token), len(str(id))) + 6  # a letter of the monospaced font is 0.602 of its size wide
        if x + wide > WIDTH - 30:
            write(ax, x + 1, top + 29.5, "…", 10, color=GREY)
            break
        rounded(ax, x, top + 23, wide, 13.5, "white", LINE)
        write(ax, x + wide / 2, top + 29.5, token, ha="center", family=MONO)
        write(ax, x + wide / 2, top + 44, str(id), ha="center", family=MONO, color=GREY)
        x += wide + 3
    post = len(found.tokens)
    parts = [(found.prefix, PALE, f"the instruction: {found.prefix} ids"), (post, "white", f"post: {post}"),
             (found.ids - found.prefix - post, PALE, "")]
    scale, x = (WIDTH - 34) / found.ids, 17
    for count, colour, words in parts:
        ax.add_patch(Rectangle((x, top + 56), count * scale, 14, fc=colour, ec=OURS, lw=0.7))
        write(ax, x + count * scale / 2, top + 63.5, words, ha="center")
        x += count * scale
    ax.add_patch(Rectangle((x - scale, top + 56), scale, 14, fc=INK))
    write(ax, 17, top + 81, "shared by all posts: computed once a batch", color=GREY)
    write(ax, x, top + 81, "the label is read here ↑", ha="right")


def layers(ax: Axes, found: Facts, top: float) -> None:
    """One linear of the decoder: sixteen-valued frozen weights, and the thin learned product beside them."""
    for behind in range(found.layers - 1, 0, -1):
        rounded(ax, 8 + 5 * behind, top + 50, WIDTH - 16 - 10 * behind, 54 + 3.5 * behind, CARD, LINE)
    card(ax, top, top + 104, f"Through {found.layers} decoder layers", "model/llama.py")
    write(ax, 17, top + 27, f"each with {found.linears} linears like this one: y = x (W + {found.scaling:g} B A)ᵀ",
          color=GREY)
    shades = matplotlib.colors.LinearSegmentedColormap.from_list("", ["white", OURS])
    side, y = 56, top + 39
    ax.imshow(found.corner, cmap=shades, extent=(17, 17 + side, y + side, y), aspect="auto", interpolation="nearest",
              zorder=2)
    ax.add_patch(Rectangle((17, y), side, side, fc="none", ec=OURS, lw=0.7, zorder=3))
    write(ax, 82, y + 5, f"W  {found.shape[0]} × {found.shape[1]}", weight="bold", color=OURS)
    write(ax, 82, y + 19, "frozen, in 4 bits: each")
    write(ax, 82, y + 30, "one of 16 values")
    name(ax, 82, y + 50, "quant/nf4.py", ha="left")
    write(ax, 203, y + side / 2, "+", 14, ha="center")
    wide, high = (side * found.rank / size for size in found.shape)
    ax.add_patch(Rectangle((226, y), wide, side, fc=USUAL))
    ax.add_patch(Rectangle((226 + wide + 3, y), side, high, fc=USUAL))
    write(ax, 242, y + 14, f"B, A  rank {found.rank}", weight="bold", color=BROWN)
    write(ax, 242, y + 28, f"learned: {found.learned:,} numbers")
    name(ax, 242, y + 50, "lora/layer.py", ha="left")


def labels(ax: Axes, found: Facts, top: float) -> None:
    """A dot product per label, and the softmax over them."""
    card(ax, top, top + 92, "To a label", "inference/labeller.py")
    write(ax, 17, top + 27, "dot product with each label’s row of the output matrix, then softmax", color=GREY)
    best = max(found.probabilities)
    for place, (symbol, label) in enumerate(found.labels):
        y, share = top + 43 + 12.5 * place, found.probabilities[place]
        weight = "bold" if share == best else "normal"
        write(ax, 17, y, symbol, family=MONO, weight=weight)
        write(ax, 29, y, label, weight=weight)
        write(ax, 152, y, f"{found.logits[place]:.2f}".replace("-", "−"), ha="right", family=MONO, color=GREY)
        ax.add_patch(Rectangle((168, y - 4), max(160 * share, 0.7), 8, fc=OURS if share == best else "#9cc5e0"))
        write(ax, 174 + 160 * share, y, f"{share:.3f}", weight=weight)


if __name__ == "__main__":
    run_program(main)
