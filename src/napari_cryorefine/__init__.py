"""Cryo-EM refinement in napari: the forms, layers, plots and readers of the cryorefine jobs."""
