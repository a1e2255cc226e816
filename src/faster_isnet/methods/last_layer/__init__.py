"""Refit the last layer of a classifier on images of all groups (deep feature reweighting)."""
