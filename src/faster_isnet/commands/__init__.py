"""Run what the command line offers, a module for each command.

A command reads its options and calls the package; what can be of use from Python belongs into the
folders below, and the list of commands is in :mod:`faster_isnet.cli`.
"""
