"""The glass: one post on its way to a label, every number with its formula and the code that computed it.

    python -m glass                                                     a live page on the newest run
    python -m glass --run RUN --text "..." --save page.html --verify DIR      the same, kept, and what recomputes it
    python -m glass --against 16-bit --against-text "..."               beside another model, another post, or both

The live page is served on this machine alone, under an address that nobody can guess; Ctrl-C ends it. `--save` writes
one file that shows one post and needs no server. `--verify` writes a folder with all tensors, and a small program that
recomputes them with numpy and safetensors alone: python DIR/verify.py
"""

import socket
import webbrowser
from dataclasses import dataclass
from urllib.parse import urlsplit

import torch

from common.device import DTYPES
from common.errors import UserError, run_program
from common.files import atomic_write, check_file, check_place, place_key
from common.options import option, parse_options
from common.page_server import check_port, until_stopped
from common.terminal import command, progress
from glass.adapter import every_part, kept_parts
from glass.against import compared
from glass.learning import check_label, with_steps
from glass.measured import measured
from glass.other import other_run, words_for
from glass.page import frozen
from glass.server import serving
from glass.tax import SENTENCES
from glass.trace import readable, trace
from glass.verify import write_verification
from glass.whole import base_of, whole_trace
from glass.why import why
from inference.loaded import open_run

IN_A_TERMINAL = ("www-browser", "links", "elinks", "lynx", "w3m")


@dataclass
class GlassOptions:
    """Options of this program."""

    run: str | None = option(None, "a finished run's folder (without it: the newest in runs/, or the shipped one)",
                             metavar="DIR")
    model: str | None = option(None, "where the run's base is now, if it has moved", metavar="DIR")
    text: str | None = option(None, "the post; on the live page, the first one", metavar="TEXT")
    save: str | None = option(None, "write the page for this post into a file, and open nothing", metavar="FILE")
    verify: str | None = option(None, "write what recomputes every number into a folder, and open nothing",
                                metavar="DIR")
    learn: str | None = option(None, "the kept page's steps of learning go towards this label (without it: towards "
                               "each, or, with a large adapter, towards the second most probable one)", metavar="LABEL")
    against: str | None = option(None, "show the post beside another model: nf4, 16-bit, or a run's folder",
                                 metavar="WHAT")
    against_text: str | None = option(None, "show the post beside another one", metavar="TEXT")
    port: int = option(0, "the live page's port; 0 takes a free one", minimum=0, maximum=65535)
    browser: bool = option(True, "open the live page in a browser")
    device: str = option("auto", "cpu, cuda or cuda:N; auto takes a GPU if there is one", metavar="NAME")
    dtype: str = option("auto", "compute dtype of the model; auto: bfloat16 on a GPU that multiplies it, else float32",
                        choices=("auto", "fast", *DTYPES))
    threads: int = option(0, "CPU threads; 0: one for a small model, else PyTorch's choice", minimum=0, maximum=4096)
    cache: str | None = option(None, "folder that keeps a 4-bit copy of the base", metavar="DIR")


def main(argv: list[str]) -> None:
    """Write what was asked for, or serve the page until Ctrl-C."""
    options = parse_options(GlassOptions, argv, program="python -m glass", description=__doc__)
    kept = [(option, place) for option, place in (("--save", options.save), ("--verify", options.verify)) if place]
    if kept and options.text is None:
        raise UserError(f"{kept[0][0]}: needs a post; add --text \"...\"")
    if options.learn is not None and not kept:
        raise UserError("--learn: is for --save and --verify; on the live page, choose the label there")
    for name, place in kept:
        (check_file if name == "--save" else check_place)(place, name)
    if options.save and options.verify and place_key(options.save) == place_key(options.verify):
        raise UserError(f"--verify {options.verify}: is the file of --save, too; choose another folder")
    if not kept:
        check_port(options.port)
    dtype = None if options.dtype == "auto" else options.dtype  # which is never float16, whose steps are not shown
    run = open_run(options.run, model=options.model, device=options.device, dtype=dtype, cache=options.cache)
    if not kept:
        return serve(run, options)
    if options.learn is not None:
        check_label(options.learn, run.codebook.labels, "--learn")
        if run.model.dtype == torch.float16:
            raise UserError(f"--learn {options.learn}: no step is taken in float16, where the loss is scaled; give "
                            "--dtype float32")
    text = readable(options.text, "--text")
    if options.against_text is not None:
        text = readable(options.against_text, "--against-text")
    other = other_run(run, options.against, model=options.model, cache=options.cache) if options.against else run
    with progress(4 + len(kept_parts(run.model)), "part", "computing", delay=1) as bar:
        found = why(trace(run, options.text, options.threads))
        bar.update()
        found = whole_trace(found, options.model or base_of(run))
        bar.update()
        found = every_part(found, bar.update)
        if options.against or options.against_text is not None:
            found = compared(found, trace(other, text, options.threads), words_for(options.against))
        bar.update()
        found = with_steps(run, found, options.learn)
        bar.update()
    print(found)
    if options.save:
        with atomic_write(options.save) as handle:
            handle.write(frozen(found, run=run.folder.path.name, measured=measured(run)))
        print(f"{options.save}: the page")
    if options.verify:
        write_verification(found, options.verify)
        print(f"{options.verify}: recompute it with {command(f'{options.verify}/verify.py')}")
    return None


def serve(run, options: GlassOptions) -> None:
    """The live page, until Ctrl-C."""
    text = SENTENCES["en"] if options.text is None else options.text
    with serving(run, text, options.port, against=options.against or "", against_text=options.against_text or "",
                 model=options.model, cache=options.cache, threads=options.threads) as address:
        print("\n  ".join(where_to_look(address, options.browser and opened(address))), flush=True)
        until_stopped()


def opened(address: str) -> bool:
    """Whether a browser with windows was found and told to open the page; those in a terminal run no script."""
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return False
    return getattr(browser, "name", "") not in IN_A_TERMINAL and browser.open(address)


def where_to_look(address: str, is_open: bool) -> list[str]:
    """What to do with the page's address, in lines."""
    if is_open:
        return [address, "It opens in your browser; if not, open this address there. Ctrl-C ends it."]
    port = urlsplit(address).port
    return [address, "Open this address in a browser on this machine; Ctrl-C ends it. From another computer, first run",
            f"    ssh -L {port}:127.0.0.1:{port} {socket.gethostname()}", "there, with a name by which it knows this "
            "machine, and open the same address there."]


if __name__ == "__main__":
    run_program(main)
