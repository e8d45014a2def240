"""Labelled posts: read, checked, split, sampled, put to annotators' agreement, prompted and batched."""
