"""Weights streamed through two buffers: what loading and computing take alone, one after the other, and overlapped."""
