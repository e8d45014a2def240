"""The LLaMA 3.2 decoder (Llama 3 herd, arXiv 2407.21783, section 3.2): a pre-norm transformer in two lines per block.

    h   = x + attention(norm(x))
    out = h + mlp(norm(h))

The block works on packed tokens (N, D): linear layers and norms see tokens, only attention knows rows. Modules carry
the checkpoint's names, so that a file's tensor finds its owner without a map. The norms' dtype is the dtype of the
arithmetic; embedding and head stay in the file's dtype and are cast where they are read.
"""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from common.packed import ROWS, Layout, PackedBatch
from common.product import linear
from model.attention import Attend, Attention, attend_sdpa
from model.config import LlamaConfig
from model.kv_cache import KVCache
from model.layers import MLP, Embedding, Linear, RMSNorm
from model.rope import inverse_frequencies, rotation

HEAD_CHUNK = 8192  # rows of the output matrix that are cast at a time when it is stored in another dtype


class Block(nn.Module):
    """One layer: attention and feed-forward, each on a normed copy and added to what came in; (N, D) -> (N, D)."""

    def __init__(self, config: LlamaConfig, layer: int):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config.hidden_size, config.intermediate_size, config.mlp_bias)

    def forward(self, x, rope, layout: Layout, attend: Attend, cache: KVCache | None = None, asked=None
                ) -> torch.Tensor:
        attended = self.self_attn(self.input_layernorm(x), rope, layout, attend, cache, asked)
        x = (x if asked is None else x[asked]) + attended
        return x + self.mlp(self.post_attention_layernorm(x))


class LlamaModel(nn.Module):
    """Embedding, L blocks and the final norm: tokens (N,) -> hidden states (N, D), or (Q, D) where Q tokens ask.

    What nobody reads is not computed: in the last block only the tokens `asked`, given as plain integers and as an
    index (Q,), go past keys and values.
    """

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, tokens, positions, layout, attend, cache=None, checkpointing=False, asked=None) -> torch.Tensor:
        dtype = self.norm.weight.dtype
        x = self.embed_tokens(tokens).to(dtype)  # (N, D)
        rope = rotation(positions, inverse_frequencies(self.config, tokens.device), dtype)  # 2 x (N, h/2)
        for layer in self.layers:
            inputs = (x, rope, layout, attend, cache)
            if asked is not None and layer is self.layers[-1]:
                inputs = (x, rope, layout.asking(asked[0]), attend, cache, asked[1])
            # Checkpointing keeps only the layer's input and computes the rest again in backward.
            x = checkpoint(layer, *inputs, use_reentrant=False) if checkpointing else layer(*inputs)
        return self.norm(x)


class LlamaForCausalLM(nn.Module):
    """The decoder with its output head; `lm_head` is absent where the embedding table serves as the head (tied)."""

    def __init__(self, config: LlamaConfig, attend: Attend = attend_sdpa):
        super().__init__()
        self.config, self.attend = config, attend
        self.fill_to = ROWS  # a batch to label has a multiple of so many tokens and answers (see `common.packed.ROWS`)
        self.model = LlamaModel(config)
        if not config.tie_word_embeddings:
            self.lm_head = Linear(config.hidden_size, config.vocab_size)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the arithmetic is done in."""
        return self.model.norm.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.norm.weight.device

    @property
    def head_weight(self) -> torch.Tensor:
        """The output matrix (V, D), in the file's dtype."""
        return self.model.embed_tokens.weight if self.config.tie_word_embeddings else self.lm_head.weight

    def forward(self, input_ids: torch.Tensor, cache: KVCache | None = None) -> torch.Tensor:
        """Logits of every position: (B, T) int64 -> (B, T, V); causal, behind the cache's positions if one is given."""
        rows, length = input_ids.shape
        past = 0 if cache is None else cache.length
        layout = Layout.rectangle(rows, length, past)
        positions = torch.arange(past, past + length, device=input_ids.device).repeat(rows)  # (N,)
        x = self.model(input_ids.reshape(-1), positions, layout, self.attend, cache)  # (N, D)
        if cache is not None:
            cache.advance(length)
        return self.logits(x).view(rows, length, -1)

    def hidden(self, batch: PackedBatch, checkpointing: bool = False) -> torch.Tensor:
        """Final hidden states of a packed batch, (N, D); `checkpointing` trades a second forward for memory."""
        return self.model(batch.tokens, batch.positions, batch.layout, self.attend, None, checkpointing)

    def answers(self, batch: PackedBatch, checkpointing: bool = False) -> torch.Tensor:
        """Final hidden states where answers are read, (R, D): `hidden(batch)[batch.answer_index]` for less work.

        The last layer computes `fill_to` positions or that times a power of two, the last one repeated: a post's bits
        do not depend on how many others are asked with it (see `common.packed.pack`), and there are few sizes of which
        oneDNN keeps a kernel.
        """
        count = len(batch.answers)
        fill = (self.fill_to << ((count - 1) // self.fill_to).bit_length()) - count
        asked = (batch.answers + batch.answers[-1:] * fill,
                 torch.cat([batch.answer_index, batch.answer_index[-1:].expand(fill)]))
        return self.model(batch.tokens, batch.positions, batch.layout, self.attend, None, checkpointing, asked)[:count]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Full-vocabulary logits (..., D) -> (..., V) in hidden's dtype; a head of another dtype is cast in slices."""
        weight = self.head_weight
        size = len(weight) if weight.dtype == hidden.dtype else HEAD_CHUNK
        return torch.cat([linear(hidden, part) for part in weight.split(size)], dim=-1)

    def label_logits(self, hidden: torch.Tensor, label_ids: torch.Tensor) -> torch.Tensor:
        """Logits of C tokens only: (R, D), (C,) -> (R, C), in at least float32.

        A product and a sum per entry, not a matrix product: the same bits for a post whatever else is in the batch.
        """
        exact = torch.promote_types(hidden.dtype, torch.float32)
        rows = self.head_weight[label_ids].to(exact)  # (C, D)
        return (hidden.to(exact)[:, None, :] * rows).sum(-1)
