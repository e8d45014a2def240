"""How the small base in `base/` was made: `python -m tools.pretrain`."""
