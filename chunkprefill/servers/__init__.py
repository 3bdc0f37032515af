"""Real servers: `probe` one, `advise` on its settings, start a vLLM of our own."""
