"""Fine-tuning: posts become rows, steps are cut to fit the memory, the adapter is trained, and a run folder is left.

Reading order: `options`, `prepare`, `loop`, `memory`, `run_folder`.
"""
