"""One module a chapter: the exercises, filled in. Nothing but the tests imports them."""
