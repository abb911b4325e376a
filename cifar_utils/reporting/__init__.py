"""Runs of notebooks: executed, shown while they last, exported as pages, listed on an index."""
