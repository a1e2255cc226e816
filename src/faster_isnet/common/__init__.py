"""What every part of the package may use: helpers that know nothing of relevance or training.

What belongs to a method, a model, a data source or a report does not live here.
"""
