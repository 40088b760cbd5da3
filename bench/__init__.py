"""Compiled networks against other runtimes, side by side on one machine: python -m bench --help."""
