"""What to read of a model, and what it measures."""
