"""The decoder, written by hand, and the way from public files into it.

Reading order: `config`, `rope`, `layers`, `attention`, `cache`, `llama`, then `weights` and `tokenizer`. The letters in
the shape comments are those of `common/packed.py`.
"""
