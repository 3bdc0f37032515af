"""Mark submissions: student code in a sandbox, every comparison outside. `python -m chunkprefill_grading`."""
