"""What is wrong with the norms of a model: one module a family of findings, one table of codes."""
