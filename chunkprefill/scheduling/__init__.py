"""Decide who runs next: the nouns, the block pool, the loop, the policies."""
