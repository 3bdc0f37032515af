"""A trace or numbers to SVG, each with its alt text, caption and table."""
