"""The LLaMA 3.2 decoder (Llama 3 herd, arXiv 2407.21783, section 3.2): a pre-norm transformer in two lines per block.

    h   = x + attention(norm(x))
    out = h + mlp(norm(h))

`Block.forward` is these two lines, but for the first sum, which it leaves to the norm behind it: together they are one
kernel on a card. `Block.answer_hidden`, beside it, computes the same for the few rows that are read; the tests check
that the two agree. The block works on packed tokens (N, D): linear layers and norms see tokens, only attention knows
about rows. Modules carry the checkpoint's names, so that a file's tensor finds its owner without a map of names. The
norms' dtype is the compute dtype; embedding and head stay in the file's dtype and are cast when they are read.
"""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from common.device import is_recorded
from common.packed import ROWS, Layout, PackedBatch
from common.product import linear
from model.attention import Attend, Attention, attend_sdpa
from model.config import LlamaConfig
from model.kv_cache import KVCache
from model.layers import MLP, Embedding, Linear, RMSNorm
from model.rope import inverse_frequencies, rotation

HEAD_CHUNK = 8192  # rows of the output matrix that are cast at a time when it is stored in another dtype


class Block(nn.Module):
    """One layer: attention and feed-forward, each on a normed copy and added to its input; (N, D) -> (N, D)."""

    def __init__(self, config: LlamaConfig, layer: int):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config.hidden_size, config.intermediate_size, config.mlp_bias)

    def forward(self, x, rope, layout: Layout, attend: Attend, kv_cache: KVCache | None = None) -> torch.Tensor:
        h, normed = self.post_attention_layernorm(  # h = x + attention
            self.self_attn(self.input_layernorm(x), rope, layout, attend, kv_cache), residual=x)
        return h + self.mlp(normed)

    def answer_hidden(self, x, rope, layout: Layout, attend: Attend, query_index: torch.Tensor) -> torch.Tensor:
        """`forward(x, ...)[query_index]` for less work, when the rest is not read: (N, D) and (Q,) int64 -> (Q, D).

        All N tokens supply keys and values; only the query tokens (`layout.query_tokens`) go any further.
        """
        attention, normed = self.self_attn, self.input_layernorm(x)
        k, v = attention.keys_values(normed, rope)  # (N, K, h) each
        q = attention.queries(normed[query_index], tuple(part[query_index] for part in rope))  # (Q, H, h)
        written = attention.o_proj(attend(q, k, v, layout).reshape(len(q), -1))  # (Q, D)
        h, normed = self.post_attention_layernorm(written, residual=x[query_index])  # h = x + written
        return h + self.mlp(normed)


class LlamaModel(nn.Module):
    """Embedding, L blocks and the final norm: tokens (N,) and their positions (N,) -> hidden states (N, D).

    `queries`: the tokens whose hidden states are wanted, as plain integers and as an index (Q,) int64. The last block
    then computes no others (`Block.answer_hidden`), and the result is (Q, D).
    """

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self._frequencies: dict[torch.device, torch.Tensor] = {}

    def frequencies(self, device: torch.device) -> torch.Tensor:
        """`inverse_frequencies` (h/2,) on `device`, computed once: on a GPU that takes some twenty launches."""
        if device not in self._frequencies:
            with torch.inference_mode(False):  # else training after a first inference could not use them
                self._frequencies[device] = inverse_frequencies(self.config, device)
        return self._frequencies[device]

    def forward(self, tokens, positions, layout: Layout, attend: Attend, kv_cache: KVCache | None = None,
                checkpointing: bool = False, queries: tuple[tuple[int, ...], torch.Tensor] | None = None
                ) -> torch.Tensor:
        dtype = self.norm.weight.dtype
        x = self.embed_tokens(tokens).to(dtype)  # (N, D)
        rope = rotation(positions, self.frequencies(tokens.device), dtype)  # 2 x (N, h/2)

        def run(step, *inputs):
            # Checkpointing keeps only the layer's input and recomputes the rest in backward. The random numbers of
            # dropout are drawn again then; a CUDA graph, which records no dropout, cannot ask for their state.
            if not checkpointing:
                return step(*inputs)
            return checkpoint(step, *inputs, use_reentrant=False, preserve_rng_state=not is_recorded(x.device))

        for layer in self.layers if queries is None else self.layers[:-1]:
            x = run(layer, x, rope, layout, attend, kv_cache)
        if queries is not None:
            tokens, index = queries
            x = run(self.layers[-1].answer_hidden, x, rope, layout.with_queries(tokens), attend, index)
        return self.norm(x)


class LlamaForCausalLM(nn.Module):
    """The decoder with its output head; `lm_head` is absent if the embedding table serves as the head (tied)."""

    def __init__(self, config: LlamaConfig, attend: Attend = attend_sdpa):
        super().__init__()
        self.config, self.attend = config, attend
        self.fill_to = ROWS  # batches to label are filled up to a multiple of this (see `common.packed.ROWS`)
        self.model = LlamaModel(config)
        if not config.tie_word_embeddings:
            self.lm_head = Linear(config.hidden_size, config.vocab_size)

    @classmethod
    def empty(cls, config: LlamaConfig, attend: Attend = attend_sdpa) -> "LlamaForCausalLM":
        """Modules, names and shapes without memory, on PyTorch's meta device: for counting, or to be given tensors."""
        with torch.device("meta"):
            return cls(config, attend)

    @property
    def dtype(self) -> torch.dtype:
        """The compute dtype."""
        return self.model.norm.weight.dtype

    @property
    def device(self) -> torch.device:
        """The device that holds the weights."""
        return self.model.norm.weight.device

    @property
    def head_weight(self) -> torch.Tensor:
        """The output matrix (V, D), in the file's dtype."""
        return self.model.embed_tokens.weight if self.config.tie_word_embeddings else self.lm_head.weight

    def forward(self, input_ids: torch.Tensor, kv_cache: KVCache | None = None) -> torch.Tensor:
        """Logits of every position: (B, T) int64 -> (B, T, V); causal, after the cache's positions if one is given.
        Raises `ValueError` for anything but a rectangle of ids."""
        if not isinstance(input_ids, torch.Tensor) or input_ids.dim() != 2 or not input_ids.numel():
            given = tuple(input_ids.shape) if isinstance(input_ids, torch.Tensor) else type(input_ids).__name__
            raise ValueError(f"input_ids is {given}; a tensor (B, T) of token ids was expected: torch.tensor([ids]) "
                             "makes one row of a list")
        rows, length = input_ids.shape
        if kv_cache is not None and kv_cache.rows != rows:
            raise ValueError(f"the cache is one of {kv_cache.rows} rows, and input_ids has {rows}")
        past = 0 if kv_cache is None else kv_cache.length
        layout = Layout.rectangle(rows, length, past)
        positions = torch.arange(past, past + length, device=input_ids.device).repeat(rows)  # (N,)
        x = self.model(input_ids.reshape(-1), positions, layout, self.attend, kv_cache)  # (N, D)
        if kv_cache is not None:
            kv_cache.advance(length)
        return self.logits(x).view(rows, length, -1)

    def hidden(self, batch: PackedBatch, checkpointing: bool = False) -> torch.Tensor:
        """Final hidden states of a packed batch, (N, D); `checkpointing` saves memory by running forward twice."""
        return self.model(batch.tokens, batch.positions, batch.layout, self.attend, None, checkpointing)

    def answer_hidden(self, batch: PackedBatch, checkpointing: bool = False) -> torch.Tensor:
        """Final hidden states at the answer positions, (R, D): `hidden(batch)[batch.answer_index]` for less work.

        The last block computes `fill_to` positions or that times a power of two, filled up by repeating the last one: a
        post's bits then do not depend on how many others are in its batch (see `common.packed.pack`), and oneDNN has
        few sizes to keep kernels for.
        """
        count = len(batch.answer_tokens)
        index = torch.cat([batch.answer_index, batch.answer_index[-1:].expand(self._filling(count))])
        hidden = self.model(batch.tokens, batch.positions, batch.layout, self.attend, None, checkpointing,
                            (self.asked(batch), index))
        return hidden[:count]

    def asked(self, batch: PackedBatch) -> tuple[int, ...]:
        """The tokens that the last block of `answer_hidden` computes: the answers', filled up."""
        return batch.answer_tokens + batch.answer_tokens[-1:] * self._filling(len(batch.answer_tokens))

    def _filling(self, count: int) -> int:
        """How many rows fill up `count`."""
        return (self.fill_to << ((count - 1) // self.fill_to).bit_length()) - count

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Full-vocabulary logits (..., D) -> (..., V) in hidden's dtype; a head of another dtype is cast in slices."""
        weight = self.head_weight
        if weight.dtype == hidden.dtype:
            return linear(hidden, weight)
        return torch.cat([linear(hidden, part) for part in weight.split(HEAD_CHUNK)], dim=-1)

    def label_logits(self, hidden: torch.Tensor, label_ids: torch.Tensor, filled: bool = False) -> torch.Tensor:
        """Logits of C tokens only: (R, D), (C,) -> (R, C), in at least float32.

        A product and a sum per entry, not a matrix product: a post gets the same bits whatever else is in the batch. On
        a GPU that takes `filled`, too, since the order of a sum there depends on how many are computed at once: rows
        are filled up as in `answer_hidden`, and cut off behind the sum.
        """
        compute_dtype = torch.promote_types(hidden.dtype, torch.float32)
        rows, count = self.head_weight[label_ids].to(compute_dtype), len(hidden)  # (C, D)
        if filled:
            hidden = torch.cat([hidden, hidden[-1:].expand(self._filling(count), -1)])
        return (hidden.to(compute_dtype)[:, None, :] * rows).sum(-1)[:count]
