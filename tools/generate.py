"""Text from a checkpoint, token by token: `python -m tools.generate --model DIR --prompt "Once upon a time"`.

Each step takes the logits of the last position and chooses one id:

    temperature 0     the largest logit (greedy)
    temperature t     a draw from softmax(logits / t), cut to its nucleus

where the nucleus is the smallest set of tokens, most probable first, whose probabilities reach top-p (nucleus sampling,
Holtzman et al., arXiv 1904.09751), in float32 at least, on the CPU from a seeded generator, so that a seed means the
same on every device. A key/value cache holds what was computed for earlier tokens. `--chat` writes the prompt in Llama
3's chat format; the date lines that the published template puts into every conversation are written on request only
(`--date-header`), because a text that depends on the day it was made cannot be made again.

The small base in `base/` was never trained to predict the next token: it labels posts, and what it writes is noise.
"""

import codecs
import sys
import time
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from common.device import DTYPES, choose_device, choose_dtype
from common.errors import UserError, run_program
from common.options import option, parse_options
from loading import load_model
from loading.assemble import QUANTIZE
from loading.sources import find_source
from loading.weights import read_config
from model.kv_cache import KVCache
from model.llama import LlamaForCausalLM
from model.tokenizer import Tokenizer, load_tokenizer

CHAT_TOKENS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
PREFILL = 256  # prompt positions per call: the model gives logits for all of them, (256, 128256) is 131 MB in float32


@dataclass
class Options:
    """What `python -m tools.generate` can be told."""

    model: str | None = option(None, "checkpoint folder, run, PEFT adapter, or a name on the Hugging Face Hub",
                               metavar="DIR")
    prompt: str = option("", "the text to continue, or with --chat the user's message")
    max_new_tokens: int = option(200, "stop after so many tokens", minimum=1)
    temperature: float = option(0.0, "0 takes the most probable token; 1 draws as the model says", minimum=0)
    top_p: float = option(1.0, "draw from the most probable tokens that together have this share", above=0, maximum=1)
    seed: int = option(0, "seed of the draws", minimum=0)
    stop: list[str] = option((), "special tokens that also end the text", metavar="NAME")
    chat: bool = option(False, "write the prompt in Llama 3's chat format and print the answer only", group="chat")
    system: str | None = option(None, "the system message", group="chat")
    date_header: bool = option(False, "the template's two date lines, with today's date", group="chat")
    tokenizer: str | None = option(None, "tokenizer file or folder, where it is not in the model's folder",
                                   metavar="PATH", group="loading")
    adapter: str | None = option(None, "LoRA adapter folder in PEFT's layout", metavar="DIR", group="loading")
    quantize: str = option("stored", "weights as stored, dense, or in 4 bits", choices=QUANTIZE, group="loading")
    device: str = option("auto", "cpu, cuda or cuda:0", group="loading")
    dtype: str = option("auto", "of the arithmetic", choices=("auto", *DTYPES), group="loading")


def main(argv: list[str]) -> None:
    """Load, generate, print as it comes; what was read and how fast it went goes to stderr."""
    options = parse_options(Options, argv, program="python -m tools.generate", description=__doc__)
    if options.model is None:
        raise UserError("--model: is missing; give a model (--help shows every option)")
    for name in ("system", "date_header"):
        if not options.chat and name in options.given:
            raise UserError(f"--{name.replace('_', '-')}: belongs to the chat format; add --chat")
    source = find_source(options.model)
    tokenizer = load_tokenizer(options.tokenizer or source.tokenizer)
    for note in tokenizer.notes:
        print(note, file=sys.stderr)
    if options.chat:
        messages = [("system", options.system)] if options.system is not None else []
        date = time.strftime("%d %b %Y") if options.date_header else None
        ids = chat_ids(tokenizer, [*messages, ("user", options.prompt)], date)
    else:
        ids = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        ids += tokenizer.encode(options.prompt)
    stop_ids = {*tokenizer.eos_ids, *map(tokenizer.special, options.stop)}
    if not ids:
        raise UserError("--prompt: is empty, and this tokenizer has no token that begins a text; give some text")
    device = choose_device(options.device)
    dtype, _ = choose_dtype(device, options.dtype)
    tokenizer.check_fits(read_config(source.base).vocab_size, ids)
    model = load_model(options.model, device=device, dtype=dtype, quantize=options.quantize, adapter=options.adapter)

    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal that is not UTF-8 must not end the program
    show = visible if sys.stdout.isatty() else str
    stream = TextStream(tokenizer, skip_space=options.chat or not options.prompt)
    tokens = generate(model, ids, options.max_new_tokens, stop_ids, temperature=options.temperature,
                      top_p=options.top_p, seed=options.seed, vocab_size=tokenizer.vocab_size)
    if not options.chat:
        print(show(options.prompt), end="", flush=True)
    started, count, last = time.perf_counter(), 0, None
    for last in tokens:
        count += 1
        if last not in stop_ids:
            print(show(stream.feed(last)), end="", flush=True)
    print(show(stream.finish()), flush=True)
    reason = f"ended by {tokenizer.token_bytes(last).decode()}" if last in stop_ids else "ended by --max-new-tokens"
    speed = count / (time.perf_counter() - started)
    print(f"{len(ids)} tokens read, {count} written, {reason}, {speed:.1f} tokens/s", file=sys.stderr)


def chat_ids(tokenizer: Tokenizer, messages: Iterable[tuple[str, str]], date: str | None = None) -> list[int]:
    """Ids of a conversation in Llama 3's chat format, up to where the assistant's answer begins.

        <|begin_of_text|><|start_header_id|>user<|end_header_id|>\\n\\nHello<|eot_id|><|start_header_id|>assistant...

    As the published template, message by message, each stripped of white space at its ends; all ordinary text between
    two special tokens is encoded in one call. `date` ("26 Jul 2024") adds the template's date lines to the system
    message; without it there are none, and no system turn either where there is no system message (the template would
    write an empty one; Meta's own code writes none). Raises `UserError` where the tokenizer lacks the chat tokens.
    """
    for name in CHAT_TOKENS:
        if not tokenizer.has_special(name):
            raise UserError(f"{tokenizer.source}: --chat: has no {name}; Llama 3's chat format needs it")
    start, end, eot = map(tokenizer.special, CHAT_TOKENS)
    messages = list(messages)
    if date is not None:
        system = messages.pop(0)[1].strip() if messages and messages[0][0] == "system" else ""
        head = f"Cutting Knowledge Date: December 2023\nToday Date: {date}\n\n{system}"
        ids = [*_turn(tokenizer, start, end, "system", head), eot]
    else:
        ids = []
    for role, content in messages:
        ids += [*_turn(tokenizer, start, end, role, content.strip()), eot]
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    return bos + ids + _turn(tokenizer, start, end, "assistant", "")


def _turn(tokenizer: Tokenizer, start: int, end: int, role: str, content: str) -> list[int]:
    return [start, *tokenizer.encode(role), end, *tokenizer.encode("\n\n" + content)]


def generate(model: LlamaForCausalLM, ids: list[int], max_new_tokens: int, stop_ids=(), *, temperature: float = 0.0,
             top_p: float = 1.0, seed: int = 0, vocab_size: int | None = None, cached: bool = True) -> Iterator[int]:
    """New ids after `ids`, one at a time; a stop id is given out and is the last.

    cached=False computes the whole text again for each token: the specification, which the cache must equal.
    vocab_size: ids from here on are never chosen (rows of the output matrix that the tokenizer has no text for).
    Raises `UserError` where the text would be longer than the model's positions, or the logits are not finite.
    """
    limit = model.config.max_position_embeddings
    if len(ids) + max_new_tokens > limit:
        raise UserError(f"--max-new-tokens: {len(ids)} tokens of prompt and {max_new_tokens} new ones are more than "
                        f"the model's {limit} positions; ask for at most {max(limit - len(ids), 0)}")
    outside = [id for id in ids if not 0 <= id < model.config.vocab_size]
    if outside:
        raise UserError(f"the prompt's token {outside[0]} is outside the model's vocabulary of "
                        f"{model.config.vocab_size}; tokenizer and model do not belong together")
    return _steps(model, torch.tensor([ids], device=model.device), max_new_tokens, frozenset(stop_ids), temperature,
                  top_p, torch.Generator().manual_seed(seed), vocab_size, cached)


@torch.inference_mode()
def _steps(model, ids, max_new_tokens, stop_ids, temperature, top_p, generator, vocab_size, cached) -> Iterator[int]:
    cache = None
    if cached:
        cache = KVCache(model.config, 1, ids.shape[1] + max_new_tokens, dtype=model.dtype, device=model.device)
    for _ in range(max_new_tokens):
        if cache is not None:
            for part in ids[:, cache.length :].split(PREFILL, dim=1):
                logits = model(part, cache=cache)[0, -1]  # (V,)
        else:
            logits = model(ids)[0, -1]
        chosen = choose(logits[:vocab_size], temperature, top_p, generator)
        yield chosen
        if chosen in stop_ids:
            return
        ids = torch.cat([ids, ids.new_tensor([[chosen]])], dim=1)


def choose(logits: torch.Tensor, temperature: float, top_p: float, generator: torch.Generator) -> int:
    """One id from logits (V,): the largest at temperature 0 (of equals, the smallest id), else a draw."""
    if not torch.isfinite(logits).all():
        raise UserError("the model's logits are not finite; its weights are damaged, or float16 is too narrow for "
                        "them (try --dtype float32)")
    if temperature == 0:
        return int((logits == logits.max()).nonzero()[0])
    probabilities = nucleus(logits.cpu(), temperature, top_p)  # (V,)
    return int(torch.multinomial(probabilities, 1, generator=generator))


def nucleus(logits: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """softmax(logits / temperature) cut to its nucleus and scaled to sum 1: (V,) -> (V,), in at least float32.

    The nucleus is the smallest set of most probable tokens whose probabilities reach top_p; it is never empty.
    """
    exact = torch.promote_types(logits.dtype, torch.float32)
    probabilities = torch.softmax((logits.to(exact) - logits.max().to(exact)) / temperature, dim=-1)
    if top_p < 1:
        sorted_, order = probabilities.sort(descending=True, stable=True)
        above = sorted_.cumsum(-1) - sorted_  # the share of all tokens more probable than this one
        probabilities[order[above >= top_p]] = 0
    return probabilities / probabilities.sum()


class TextStream:
    """Ids to text as they come: a character whose bytes are spread over tokens appears with its last byte.

    skip_space: leave out the space that sentencepiece puts before a text (nothing printed stands before it).
    """

    def __init__(self, tokenizer, skip_space: bool = False):
        self.tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._skip_space = skip_space and tokenizer.adds_space

    def feed(self, id: int) -> str:
        """The characters that this id completes, perhaps none."""
        data = self.tokenizer.token_bytes(id)
        if self._skip_space:
            data, self._skip_space = data.removeprefix(b" "), False
        return self._decoder.decode(data)

    def finish(self) -> str:
        """What is left at the end: U+FFFD for bytes that never became a character."""
        return self._decoder.decode(b"", final=True)


def visible(text: str) -> str:
    """`text` with control characters other than tab and newline shown as U+FFFD: no model may drive the terminal."""
    return "".join("\ufffd" if unicodedata.category(char) == "Cc" and char not in "\n\t" else char for char in text)


if __name__ == "__main__":
    run_program(main)
