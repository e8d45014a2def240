"""The parts of `benchmarks/gpu.py`: what is checked and measured on a card, one file per subject."""
