"""From an empty file to a 4-bit fine-tune, in chapters: `python -m learn` lists them and says what comes next.

`chapters/` are scripts in cells, `exercises/` hold the functions that a reader fills in, `checks/` judge them, and
`solutions/` are looked at last.
"""
