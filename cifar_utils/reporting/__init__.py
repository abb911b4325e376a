"""Executes notebooks, shows their progress, exports their pages and lists them on an index."""
