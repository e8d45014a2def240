"""The hand-written decoder, and the readers of public config and tokenizer files.

Reading order: `config`, `rope`, `layers`, `attention`, `kv_cache`, `llama`, then `tokenizer`. The letters in
the shape comments are those of `common/packed.py`.
"""
