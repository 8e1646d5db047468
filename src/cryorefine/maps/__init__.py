"""Filters, Fourier shell correlation, masks and sharpening of maps, as functions on plain arrays."""
