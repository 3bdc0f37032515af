"""Real servers: `probe` one, `advise` on its settings, run requests on vLLM itself."""
