"""New tokens after a prompt, one by one, and the text that they spell.

Each step takes the logits of the last position and chooses one id:

    temperature 0     the largest logit (greedy)
    temperature t     a draw from softmax(logits / t), cut to its nucleus

where the nucleus is the smallest set of tokens, most probable first, whose probabilities reach top-p (nucleus sampling,
Holtzman et al., arXiv 1904.09751). Draws are made in at least float32, on the CPU, from a seeded generator, so that a
seed means the same on every device. A KV cache holds what was computed for earlier tokens.
"""

import codecs
from collections.abc import Iterable, Iterator

import torch

from common.errors import UserError
from model.kv_cache import KVCache
from model.llama import LlamaForCausalLM
from model.tokenizer import Tokenizer

CHAT_TOKENS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
PREFILL = 256  # prompt positions per call: the model gives logits for all of them, (256, 128256) is 131 MB in float32


def chat_ids(tokenizer: Tokenizer, messages: Iterable[tuple[str, str]], date: str | None = None) -> list[int]:
    """Ids of a conversation in Llama 3's chat format, up to where the assistant's answer begins.

        <|begin_of_text|><|start_header_id|>user<|end_header_id|>\\n\\nHello<|eot_id|><|start_header_id|>assistant...

    As in the published template, message by message, each stripped of white space at its ends; all ordinary text
    between two special tokens is encoded in one call. `date` ("26 Jul 2024") adds the template's date lines to the
    system message; without it there are none, and no system turn either if there is no system message (the template
    would write an empty one; Meta's own code writes none). Raises `UserError` if the tokenizer lacks the chat tokens.
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
    """New ids after `ids`, one at a time; a stop id is yielded too, as the last.

    cached=False computes the whole text again for each token: the specification, which the cache must match.
    vocab_size: ids from here on are never chosen (rows of the output matrix for which the tokenizer has no text).
    Raises `UserError` if the text would be longer than the model's positions, or the logits are not finite.
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
    kv_cache = None
    if cached:
        kv_cache = KVCache(model.config, 1, ids.shape[1] + max_new_tokens, dtype=model.dtype, device=model.device)
    for _ in range(max_new_tokens):
        if kv_cache is not None:
            for part in ids[:, kv_cache.length :].split(PREFILL, dim=1):
                logits = model(part, kv_cache)[0, -1]  # (V,)
        else:
            logits = model(ids)[0, -1]
        chosen = choose(logits[:vocab_size], temperature, top_p, generator)
        yield chosen
        if chosen in stop_ids:
            return
        ids = torch.cat([ids, ids.new_tensor([[chosen]])], dim=1)


def choose(logits: torch.Tensor, temperature: float, top_p: float, generator: torch.Generator) -> int:
    """One id from logits (V,): the largest at temperature 0 (the smallest id of equals), else a draw."""
    if not torch.isfinite(logits).all():
        raise UserError("the model's logits are not finite; its weights are damaged, or float16 is too narrow for "
                        "them (try --dtype float32)")
    if temperature < 1e-30:  # float32 divides by no smaller number; the draw would be the largest logit anyway
        return int((logits == logits.max()).nonzero()[0])
    probabilities = nucleus(logits.cpu(), temperature, top_p)  # (V,)
    return int(torch.multinomial(probabilities, 1, generator=generator))


def nucleus(logits: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """softmax(logits / temperature) cut to its nucleus and scaled to sum 1: (V,) -> (V,), in at least float32.

    The nucleus is the smallest set of most probable tokens whose probabilities reach top_p; it is never empty.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    probabilities = torch.softmax((logits - logits.max()) / temperature, dim=-1)
    if top_p < 1:
        sorted_, order = probabilities.sort(descending=True, stable=True)
        above = sorted_.cumsum(-1) - sorted_  # the share of all tokens more probable than this one
        probabilities[order[above >= top_p]] = 0
    return probabilities / probabilities.sum()


class TextStream:
    """Ids to text as they come: a character whose bytes are spread over tokens appears with its last byte.

    skip_space: leave out the space that sentencepiece puts before a text (if nothing is printed before it).
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
