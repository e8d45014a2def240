"""An audit of one run: what four bits cost, what the adapter does, how it behaves, what it remembers, where it is from.

Reading order: `subject`, `change`; then one file for each part of the report; `page`, `__main__`.
"""
