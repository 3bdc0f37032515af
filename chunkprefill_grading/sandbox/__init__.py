"""Run students' code where it can harm nothing: bubblewrap, limits, the protocol."""
