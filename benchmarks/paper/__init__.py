"""The checks of "Algebraic Dead Directions in LayerNorm Transformers" (arXiv 2606.19491), run again on models at hand.

    python -m benchmarks.paper

`spectrum` holds the mathematics (numpy only), `networks` the untrained architectures, `checkpoints` the trained ones,
`activations` what touches torch, `report` the tables of docs/paper.md.
"""
