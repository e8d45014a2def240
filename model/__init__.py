"""The decoder, written by hand, and the way from public files into it.

Reading order: `config`, `rope`, `layers`, `attention`, `kv_cache`, `llama`, then `tokenizer`. The letters in
the shape comments are those of `common/packed.py`.
"""
