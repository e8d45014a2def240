"""Text from a checkpoint, token by token: `python -m tools.generate --model DIR --prompt "Once upon a time"`.

`inference.generate` chooses the tokens, greedily or by sampling from the nucleus. `--chat` writes the prompt in the
layout of the model's own chat template (Llama 3's, ChatML, Llama 2's or Zephyr's). The date lines that Llama 3's
template puts into every conversation are written only on request (`--date-header`): a text that depends on today's date
cannot be reproduced.

The small base in `base/` was never trained to predict the next token: it labels posts, and what it writes is noise.
"""

import sys
import time
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from common.device import DTYPES, choose_device, choose_dtype
from common.errors import UserError, escaped, run_program
from common.options import option, parse_options
from common.reading import check_path
from inference.generate import TextStream, chat_ids, generate
from loading import load_model
from loading.assemble import QUANTIZE
from loading.sources import find_source
from loading.weights import read_config
from model.tokenizer import load_tokenizer


@dataclass
class Options:
    """Options of `python -m tools.generate`."""

    model: str | None = option(None, "checkpoint folder, GGUF file, run, PEFT adapter, a name on the Hugging Face Hub, "
                               "or smollm2", metavar="DIR")
    prompt: str = option("", "the text to continue, or with --chat the user's message")
    max_new_tokens: int = option(200, "stop after this many tokens", minimum=1)
    temperature: float = option(0.0, "0 takes the most probable token; 1 samples as the model predicts", minimum=0)
    top_p: float = option(1.0, "sample from the most probable tokens that together have this probability", above=0,
                          maximum=1)
    seed: int = option(0, "seed for sampling", minimum=0)
    stop: list[str] = option((), "special tokens that also end the text", metavar="NAME")
    chat: bool = option(False, "write the prompt in the model's chat layout and print only the answer", group="chat")
    system: str | None = option(None, "the system message", group="chat")
    date_header: bool = option(False, "write the two date lines of Llama 3's template, with today's date", group="chat")
    tokenizer: str | None = option(None, "tokenizer file or folder, if it is not in the model's folder",
                                   metavar="PATH", group="loading")
    adapter: str | None = option(None, "LoRA adapter folder in PEFT's layout", metavar="DIR", group="loading")
    quantize: str = option("stored", "weights as stored, dense, or in 4 bits", choices=QUANTIZE, group="loading")
    device: str = option("auto", "cpu, cuda or cuda:0", group="loading")
    dtype: str = option("auto", "compute dtype; fast: bfloat16 wherever the device multiplies it natively",
                        choices=("auto", "fast", *DTYPES), group="loading")


def main(argv: list[str]) -> None:
    """Load, generate, and print the text as it comes; token counts and speed go to stderr."""
    options = parse_options(Options, argv, program="python -m tools.generate", description=__doc__)
    if options.model is None:
        raise UserError("--model: is missing; give a model (--help shows every option)")
    for name in ("system", "date_header"):
        if not options.chat and name in options.given:
            raise UserError(f"--{name.replace('_', '-')}: belongs to the chat format; add --chat")
    if options.tokenizer is not None:
        check_path(Path(options.tokenizer) / "tokenizer.model")
    source = find_source(options.model)
    tokenizer = load_tokenizer(options.tokenizer or source.tokenizer)
    for note in tokenizer.notes:
        print(note, file=sys.stderr)
    if options.chat:
        messages = [("system", options.system)] if options.system is not None else []
        date = time.strftime("%d %b %Y") if options.date_header else None
        ids = chat_ids(tokenizer, [*messages, ("user", options.prompt)], date)
    else:
        ids = [tokenizer.bos_id] if tokenizer.adds_bos else []
        ids += tokenizer.encode(options.prompt)
    stop_ids = {*tokenizer.eos_ids, *map(tokenizer.special, options.stop)}
    if not ids:
        raise UserError("--prompt: is empty, and this model wants no token that begins a text; give some text")
    device = choose_device(options.device)
    dtype, _ = choose_dtype(device, options.dtype)
    tokenizer.check_fits(read_config(source.base).vocab_size, ids)
    model = load_model(options.model, device=device, dtype=dtype, quantize=options.quantize, adapter=options.adapter)

    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal that is not UTF-8 must not end the program
    show = visible if sys.stdout.isatty() else str
    out = sys.stdout if sys.stdout.isatty() else getattr(sys.stdout, "stream", sys.stdout)  # a file gets all signs
    stream = TextStream(tokenizer, skip_space=options.chat or not options.prompt)
    tokens = generate(model, ids, options.max_new_tokens, stop_ids, temperature=options.temperature,
                      top_p=options.top_p, seed=options.seed, vocab_size=tokenizer.vocab_size)
    if not options.chat:
        print(show(options.prompt), end="", flush=True, file=out)
    started, count, last = time.perf_counter(), 0, None
    for last in tokens:
        count += 1
        if last not in stop_ids:
            print(show(stream.feed(last)), end="", flush=True, file=out)
    print(show(stream.finish()), flush=True, file=out)
    reason = escaped(tokenizer.token_bytes(last).decode()) if last in stop_ids else "--max-new-tokens"
    speed = count / (time.perf_counter() - started)
    print(f"{len(ids)} tokens read, {count} written, ended by {reason}, {speed:.1f} tokens/s", file=sys.stderr)


def visible(text: str) -> str:
    """`text` with control characters other than tab and newline shown as U+FFFD: no model may control the terminal."""
    return "".join("\ufffd" if unicodedata.category(char) == "Cc" and char not in "\n\t" else char for char in text)


if __name__ == "__main__":
    run_program(main)
