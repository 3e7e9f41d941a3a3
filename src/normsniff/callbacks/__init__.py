"""Thin callbacks that hand a `normsniff.Monitor`'s scalars to a trainer's own logging, one module a library."""
