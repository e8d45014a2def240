"""Where the base model's weights start: embeddings from parallel text, attention that already averages a post.

**Embeddings.** Cross-lingual latent semantic indexing (Dumais et al. 1997; Landauer & Littman 1990). With n_td the
count of token t in document d, all its languages together, and df_t the number of documents that contain t, of D:

    idf_t = log((1 + D) / (1 + df_t)),    A_td = idf_t (1 + log n_td), each column scaled to length 1,    A ~ U S V^T

Row t of U S, scaled to length 1, is the token's embedding: words that occur in the same documents, as translations do,
get similar vectors. The SVD is the randomised one of Halko, Martinsson & Tropp (2011, arXiv 0909.4061), by hand.

**Reserved coordinates.** The last `RESERVED` coordinates of an embedding are not semantic: one is constant, one holds
log(idf), the rest are random per token and large for the digits and letters that serve as label symbols.

**Attention.** In every layer but the first, q reads the constant and k reads log(idf) through the slowest rotary pair,
so that the weight of a token starts near idf / sum of idf, and values and outputs start as a copy of a slice of the
coordinates: the last position starts out holding an idf-weighted mean of the tokens before it. Everything else starts
small and random. This is an initial value only; training changes all of it.
"""

import math

import torch

from model.config import LlamaConfig
from model.llama import LlamaForCausalLM
from tools.pretrain.text import Document

RESERVED = 16
CONSTANT, RARITY = -1, -2  # indices of the constant and of log(idf) among the coordinates
RARITY_SCALE = 0.15
SYMBOLS = "0123456789abcdefghijklmnopqrstuvwxyz"


def bags(documents: list[Document], encode, vocab_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sparse weights idf * (1 + log count) of tokens in documents (D, V), rows of length 1, and idf (V,); float32."""
    rows, columns, values = [], [], []
    for row, document in enumerate(documents):
        ids = torch.tensor([i for _, text in document.texts for i in encode(text)])
        tokens, counts = ids.unique(return_counts=True)
        rows.append(torch.full_like(tokens, row))
        columns.append(tokens)
        values.append(1 + counts.float().log())
    row, column, value = torch.cat(rows), torch.cat(columns), torch.cat(values)
    frequency = torch.bincount(column, minlength=vocab_size)
    idf = ((1 + len(documents)) / (1 + frequency)).log() * (frequency > 0)  # (V,)
    value = value * idf[column]
    length = torch.zeros(len(documents)).index_add_(0, row, value.square()).sqrt().clamp_min(1e-9)
    value = value / length[row]
    size = (len(documents), vocab_size)
    return torch.sparse_coo_tensor(torch.stack([row, column]), value, size).coalesce(), idf


def token_vectors(weights: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """Rows of U S from the truncated SVD of `weights`^T: (D, V) sparse -> (V, size) float32."""
    size, wanted = min(size, *weights.shape), size
    by_token = weights.t().coalesce()
    basis = torch.randn(weights.shape[0], min(size + 32, weights.shape[0]), generator=generator)
    for _ in range(6):  # powers of A^T A pull the random basis towards the leading singular vectors
        basis = torch.linalg.qr(torch.sparse.mm(weights, torch.sparse.mm(by_token, basis)))[0]
    image = torch.sparse.mm(by_token, basis)  # (V, size + 32)
    left, singular, _ = torch.linalg.svd(image, full_matrices=False)
    vectors = left[:, :size] * singular[:size]
    return torch.nn.functional.pad(vectors, (0, wanted - size))


def embeddings(weights: torch.Tensor, idf: torch.Tensor, hidden: int, symbols: list[int],
               generator: torch.Generator) -> torch.Tensor:
    """The starting table (V, hidden) from texts alone: words' singular vectors, and the reserved coordinates."""
    rarity = torch.where(idf > 0, idf, 1.0).clamp_min(0.3)
    return starting_table(token_vectors(weights, hidden - RESERVED, generator), rarity, idf > 0, symbols, generator)


def starting_table(semantic: torch.Tensor, rarity: torch.Tensor, known: torch.Tensor, symbols: list[int],
                   generator: torch.Generator) -> torch.Tensor:
    """(V, c), (V,), (V,) bool -> (V, c + RESERVED): directions, weights above 0 and whether a token has any."""
    noise = torch.randn(semantic.shape, generator=generator)
    semantic = torch.where(known[:, None], semantic, noise)
    semantic = semantic / semantic.norm(dim=1, keepdim=True).clamp_min(1e-9)
    semantic[~known] *= 0.2
    reserved = 0.05 * torch.randn(len(semantic), RESERVED, generator=generator)
    chosen = torch.randn(len(symbols), RESERVED, generator=generator)
    chosen[:, [CONSTANT, RARITY]] = 0
    reserved[symbols] = chosen / chosen.norm(dim=1, keepdim=True)
    semantic[symbols] *= 0.3
    reserved[:, CONSTANT] = 0.2
    reserved[:, RARITY] = RARITY_SCALE * rarity.log()
    return torch.cat([semantic, reserved], dim=1)


def start_model(config: LlamaConfig, table: torch.Tensor, generator: torch.Generator, noise: float = 1.0
                ) -> LlamaForCausalLM:
    """A float32 model with the embeddings `table` and layers that start as described above.

    `noise`: what the random parts add to the residual stream, as a factor. At 1, the first layer adds several times an
    embedding's own length; where embeddings are worth keeping, it should be below 1 / sqrt(D).
    """
    model = LlamaForCausalLM(config)
    heads, kv_heads, head_dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    semantic, kv_size = config.hidden_size - RESERVED, kv_heads * head_dim
    slowest, group = head_dim // 2 - 1, heads // kv_heads
    scale = config.hidden_size**-0.5
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, parameter.shape[1] ** -0.5, generator=generator)
        model.model.embed_tokens.weight.copy_(table)
        for number, layer in enumerate(model.model.layers):
            attention = layer.self_attn
            attention.o_proj.weight.mul_(0.3 * noise)
            layer.mlp.down_proj.weight.mul_(0.3 * noise)
            if number == 0:
                continue
            for part in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj):
                part.weight.mul_(0.2)
            # score = q k / sqrt(h) = log(idf): the constant and the rarity arrive times sqrt(hidden) from the norm
            gain = math.sqrt(math.sqrt(head_dim) / (0.2 * RARITY_SCALE)) * scale
            first = (number - 1) * kv_size % semantic
            for head in range(heads):
                attention.q_proj.weight[head * head_dim + slowest, CONSTANT] += gain
            for head in range(kv_heads):
                attention.k_proj.weight[head * head_dim + slowest, RARITY] += gain
            for index in range(kv_size):
                coordinate = (first + index) % semantic
                attention.v_proj.weight[index, coordinate] += 1.0
                for twin in range(group):
                    column = (index // head_dim * group + twin) * head_dim + index % head_dim
                    attention.o_proj.weight[coordinate, column] += 1.0 / group
    return model
