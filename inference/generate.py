"""New tokens after a prompt, one by one, and the text that they spell.

Each step takes the logits of the last position and chooses one id:

    temperature 0     the largest logit (greedy)
    temperature t     a draw from softmax(logits / t), cut to its nucleus

where the nucleus is the smallest set of tokens, most probable first, whose probabilities reach top-p (nucleus sampling,
Holtzman et al., arXiv 1904.09751). Draws are made in at least float32, on the CPU, from a seeded generator, so that a
seed means the same on every device. A KV cache holds what was computed for earlier tokens.
"""

import codecs
from collections.abc import Iterable, Iterator, Mapping
from operator import index

import torch

from common.device import as_loaded
from common.errors import UserError
from data import chat
from model.kv_cache import KVCache
from model.llama import LlamaForCausalLM
from model.tokenizer import Tokenizer

DATE_LINES = "Cutting Knowledge Date: December 2023\nToday Date: {}\n\n"
PREFILL = 256  # prompt positions per call: the model gives logits for all of them, (256, 128256) is 131 MB in float32


def chat_ids(tokenizer: Tokenizer, messages: Iterable[tuple[str, str] | Mapping[str, str]], date: str | None = None
             ) -> list[int]:
    """Ids of a conversation in the model's chat layout (`data.chat`), up to where the assistant's answer begins.

        <|begin_of_text|><|start_header_id|>user<|end_header_id|>\\n\\nHello<|eot_id|><|start_header_id|>assistant...

    A message is (role, content), or {"role": ..., "content": ...}. As in the published templates, message by message,
    white space at a message's ends taken off where the template does so; all ordinary text between two special tokens
    is encoded in one call. `date` ("26 Jul 2024") adds the two date lines of Llama 3's template to the system message;
    without it there are none, and no system turn either if there is no system message (that template would write an
    empty one; Meta's own code writes none). Where a known template has a default system message (SmolLM2's), it is
    written as there. Raises `UserError` if the model has no chat layout, for `date` in another layout than Llama 3's,
    and for a role that the layout lacks or has in another place.
    """
    chosen, messages = chat.choose(tokenizer), [_message(message) for message in messages]
    chat.check_chat(chosen, tokenizer)
    if date is not None and chosen.name != "llama-3":
        raise UserError(f"--date-header: Llama 3's layout has these lines, and the model's is {chosen.name}")
    if not messages or messages[0][0] != "system":
        system = "" if date is not None else chosen.known.system if chosen.known else None
        messages = [("system", system)] * (system is not None) + messages
    turns, follows = [], None
    for role, content in messages:
        if role not in chat.ROLES or (role == "system" and follows):
            raise UserError(f"role '{role}': a system message may come first, then messages of user and assistant")
        lines = DATE_LINES.format(date) if role == "system" and date is not None else ""
        turns.append((role, [lines + chosen.layout.strip(content, role, follows)]))
        follows = role
    ids, text = [], ""
    for piece in [*chat.pieces(chosen.layout, tokenizer, turns, answer=True), None]:
        if isinstance(piece, str):
            text += piece
            continue
        ids += tokenizer.encode(text) if text else []
        ids, text = ids + [piece] * (piece is not None), ""
    return ids


def _message(message) -> tuple[str, str]:
    """Role and content of a message. Raises `UserError` for what is none."""
    parts = [message.get("role"), message.get("content")] if isinstance(message, Mapping) else message
    if not isinstance(parts, list | tuple) or [isinstance(part, str) for part in parts] != [True, True]:
        raise UserError(f"messages: {message!r} is none; give a list of (role, text): [('user', 'Hello')]")
    return parts[0], parts[1]


def generate(model: LlamaForCausalLM, ids: Iterable[int], max_new_tokens: int, stop_ids=(), *, temperature: float = 0.0,
             top_p: float = 1.0, seed: int = 0, vocab_size: int | None = None, cached: bool = True) -> Iterator[int]:
    """New ids after `ids` (a list, or a tensor (T,)), one at a time; a stop id is yielded too, as the last.

    cached=False computes the whole text again for each token: the specification, which the cache must match.
    vocab_size: ids from here on are never chosen (rows of the output matrix for which the tokenizer has no text).
    Raises `UserError` if the text would be longer than the model's positions, if the logits are not finite, and for
    ids, a temperature or a top_p that mean nothing.
    """
    try:
        ids = [index(id) for id in ids]
    except TypeError as error:
        raise UserError(f"ids: {str(ids)[:40]} is no list of token ids; tokenizer.encode(text) gives one") from error
    if not ids:
        raise UserError("ids: is empty; give a token to begin with: [tokenizer.bos_id]")
    if not (temperature >= 0 and 0 < top_p <= 1):
        raise UserError(f"temperature {temperature}, top_p {top_p}: a temperature from 0 up was expected, and a top_p "
                        "above 0 and at most 1")
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
        with as_loaded(model):  # which ends before the caller gets the token
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
