"""High-resolution cryo-EM refinement: from particles and a rough map to a sharpened map."""

__version__ = "0.1.0"
