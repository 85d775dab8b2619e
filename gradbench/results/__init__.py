"""A directory of results: its manifest, its shards, and where they come from."""
