"""Build the cache: shapes, attention, the KV cache, the transformer, and where weights come from."""
