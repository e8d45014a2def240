"""Keys and values of the tokens already seen, kept so that each new token costs one position, not the whole text."""

import torch

from model.config import LlamaConfig


class KVCache:
    """Room for `capacity` positions of `rows` texts: per layer keys and values (B, capacity, K, h).

    The model receives the cache with each call, writes the new positions after the old ones and advances `length` once
    all layers have written. Memory: 2 * L * B * capacity * K * h numbers, allocated at the start.
    """

    def __init__(self, config: LlamaConfig, rows: int, capacity: int, *, dtype=torch.float32, device="cpu"):
        shape = (config.num_hidden_layers, rows, capacity, config.num_key_value_heads, config.head_dim)
        self.keys = torch.empty(shape, dtype=dtype, device=device)  # (L, B, capacity, K, h)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        self.rows, self.length = rows, 0

    def extend(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one layer's k and v (B * T, K, h); return all its keys and values so far, (B * S, K, h) each."""
        _, rows, capacity, *head = self.keys.shape
        end = self.length + k.shape[0] // rows
        if end > capacity:
            raise ValueError(f"the cache holds {capacity} positions; {end} are needed")
        for store, new in ((self.keys, k), (self.values, v)):
            store[layer, :, self.length : end] = new.view(rows, -1, *head)
        return tuple(store[layer, :, :end].reshape(-1, *head) for store in (self.keys, self.values))

    def advance(self, tokens: int) -> None:
        """Note that all layers have written `tokens` more positions per row."""
        self.length += tokens
