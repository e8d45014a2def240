"""One module a chapter: its tasks, the answers that are right, and wrong ones with words for what they are."""
