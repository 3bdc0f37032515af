"""See it: metrics of a trace, pictures of what ran, explorers that move them."""
