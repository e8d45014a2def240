"""Tiny checkpoints in Meta's layout, and Meta's computation of them, written anew after the reference code."""

import json
from pathlib import Path

import torch

PARAMS = {"dim": 48, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 128, "multiple_of": 16,
          "ffn_dim_multiplier": 1.3, "norm_eps": 1e-5, "rope_theta": 10000.0}
BY_COLUMNS = ("wo.weight", "w2.weight")


def width(params: dict) -> int:
    """The MLP's size: two thirds of 4 dim, times the multiplier, rounded up."""
    hidden = int(2 * 4 * params["dim"] / 3)
    hidden = int(params.get("ffn_dim_multiplier", 1.0) * hidden)
    return params["multiple_of"] * ((hidden + params["multiple_of"] - 1) // params["multiple_of"])


def meta_state(params: dict, seed: int = 0, tied: bool = False) -> dict[str, torch.Tensor]:
    """Random tensors under Meta's names, large enough that every part shows in the logits."""
    draw = torch.Generator().manual_seed(seed)
    dim, kv = params["dim"], params["dim"] * params.get("n_kv_heads", params["n_heads"]) // params["n_heads"]
    hidden, shapes = width(params), {"tok_embeddings.weight": (params["vocab_size"], dim), "norm.weight": (dim,)}
    shapes |= {} if tied else {"output.weight": (params["vocab_size"], dim)}
    for layer in range(params["n_layers"]):
        own = {"attention.wq": (dim, dim), "attention.wk": (kv, dim), "attention.wv": (kv, dim),
               "attention.wo": (dim, dim), "feed_forward.w1": (hidden, dim), "feed_forward.w2": (dim, hidden),
               "feed_forward.w3": (hidden, dim), "attention_norm": (dim,), "ffn_norm": (dim,)}  # fmt: skip
        shapes |= {f"layers.{layer}.{name}.weight": shape for name, shape in own.items()}
    return {name: torch.randn(shape, generator=draw) * 0.12 if len(shape) > 1 else
            1 + 0.3 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}  # fmt: skip


def write_meta(folder: Path, params: dict, state: dict, files: int = 1, embedding_axis: int = 0) -> Path:
    """params.json and `files` consolidated files, each with its slice of every matrix."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.json").write_text(json.dumps(params))
    for number in range(files):
        part = {}
        for name, tensor in state.items():
            axis = 1 if name.endswith(BY_COLUMNS) else embedding_axis if name == "tok_embeddings.weight" else 0
            part[name] = tensor if tensor.ndim == 1 else tensor.chunk(files, axis)[number].clone()
        torch.save(part, folder / f"consolidated.{number:02d}.pth")
    return folder


def meta_logits(params: dict, state: dict, ids: torch.Tensor, scaling: dict | None = None) -> torch.Tensor:
    """Logits (T, V) of one row as Meta computes them: pairs side by side are complex numbers, turned by a product."""
    heads, kv_heads = params["n_heads"], params.get("n_kv_heads", params["n_heads"])
    size, length = params["dim"] // heads, len(ids)
    frequencies = 1.0 / params.get("rope_theta", 10000.0) ** (torch.arange(0, size, 2).float() / size)
    if scaling:
        wavelength = 2 * torch.pi / frequencies
        low, high = (scaling["original_max_position_embeddings"] / scaling[f"{word}_freq_factor"]
                     for word in ("low", "high"))
        smooth = (low / wavelength - 1) / (scaling["high_freq_factor"] - 1)  # low_freq_factor is 1
        between = (1 - smooth) * frequencies / scaling["factor"] + smooth * frequencies
        frequencies = torch.where(wavelength < high, frequencies, torch.where(
            wavelength > low, frequencies / scaling["factor"], between))  # fmt: skip
    angles = torch.outer(torch.arange(length).float(), frequencies)
    turn = torch.polar(torch.ones_like(angles), angles)[:, None]  # (T, 1, h/2)

    def norm(x, weight):
        return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + params["norm_eps"]))

    def turned(x):
        pairs = torch.view_as_complex(x.reshape(length, -1, size // 2, 2))
        return torch.view_as_real(pairs * turn).reshape(length, -1, size)

    x, mask = state["tok_embeddings.weight"][ids], torch.full((length, length), float("-inf")).triu(1)
    for layer in range(params["n_layers"]):
        own = {name.removeprefix(f"layers.{layer}.").removesuffix(".weight"): tensor for name, tensor in state.items()}
        y = norm(x, own["attention_norm"])
        q, k, v = (y @ own[f"attention.{name}"].T for name in ("wq", "wk", "wv"))
        q, k, v = turned(q), turned(k), v.view(length, -1, size)
        k, v = (part.repeat_interleave(heads // kv_heads, 1) for part in (k, v))
        weights = (torch.einsum("thd,shd->hts", q, k) / size**0.5 + mask).softmax(-1)
        x = x + torch.einsum("hts,shd->thd", weights, v).reshape(length, -1) @ own["attention.wo"].T
        y = norm(x, own["ffn_norm"])
        gate = torch.nn.functional.silu(y @ own["feed_forward.w1"].T)
        x = x + (gate * (y @ own["feed_forward.w3"].T)) @ own["feed_forward.w2"].T
    return norm(x, state["norm.weight"]) @ state.get("output.weight", state["tok_embeddings.weight"]).T


def meta_from_reference(model) -> tuple[dict, dict[str, torch.Tensor]]:
    """params.json and tensors of a transformers model, row by row: Hugging Face's row i, i + h/2 become 2i, 2i + 1."""
    config, theirs, state = model.config, model.state_dict(), {}
    size = config.head_dim
    order = [place for pair in range(size // 2) for place in (pair, pair + size // 2)]
    for name, tensor in theirs.items():
        for old, new in (("model.embed_tokens", "tok_embeddings"), ("model.", ""), ("lm_head", "output"),
                         ("self_attn.", "attention."), ("mlp.", "feed_forward."), ("gate_proj", "w1"),
                         ("down_proj", "w2"), ("up_proj", "w3"), ("q_proj", "wq"), ("k_proj", "wk"), ("v_proj", "wv"),
                         ("o_proj", "wo"), ("input_layernorm", "attention_norm"),
                         ("post_attention_layernorm", "ffn_norm")):  # fmt: skip
            name = name.replace(old, new)
        if name.endswith(("wq.weight", "wk.weight")):
            tensor = torch.cat([head[order] for head in tensor.split(size)])
        state[name] = tensor.clone()
    hidden = int(8 * config.hidden_size / 3)
    params = {"dim": config.hidden_size, "n_layers": config.num_hidden_layers, "n_heads": config.num_attention_heads,
              "n_kv_heads": config.num_key_value_heads, "vocab_size": config.vocab_size, "multiple_of": 16,
              "ffn_dim_multiplier": config.intermediate_size / hidden, "norm_eps": config.rms_norm_eps,
              "rope_theta": config.rope_parameters["rope_theta"]}
    return params, state
