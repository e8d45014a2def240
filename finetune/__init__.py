"""Fine-tuning: posts to rows, memory to cuts, steps, and what a run leaves behind.

Reading order: `options`, `prepare`, `loop`, `memory`, `run_folder`.
"""
