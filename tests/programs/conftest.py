"""Fixtures that every test of a program has: the tiny world, made once, and a working folder of its own."""

from tests.programs.hostile import in_an_empty_folder, shared_world, world  # noqa: F401
