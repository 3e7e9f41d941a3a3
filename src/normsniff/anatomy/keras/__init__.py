"""Norms, and what reads and writes around them, in the layers that a Keras configuration lists."""
