"""How a study is shown: sections, tables, figures, one page, and the files behind it."""
