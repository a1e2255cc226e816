"""Faster ISNet: classifiers trained so that their decisions do not rest on the background."""
