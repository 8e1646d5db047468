"""Tilt series: where particles lie in the images, what contrast they have there, and how to cut them out."""
