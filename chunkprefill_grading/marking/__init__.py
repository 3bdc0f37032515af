"""Points for answers, and one file for each submission."""
