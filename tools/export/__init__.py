"""Exports: the fine-tuned model in the formats of other programs, each with a model card. `python -m tools.export`."""
