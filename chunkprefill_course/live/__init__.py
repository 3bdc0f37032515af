"""What a page runs in the reader's browser: their program, checked as a notebook checks it; an experiment.

The page speaks JSON to one function, `answer`. Everything here loads on the standard library alone.
"""
