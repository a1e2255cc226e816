"""The ISNet."""
