"""From what a caller names to models: directories, shards, configurations, filenames."""
