"""Run the commands of ``faster-isnet``, a module for each, and parse their arguments.

What they do is elsewhere: here are only their options and what they print.
"""
