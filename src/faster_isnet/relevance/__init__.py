"""The relevance engine."""
