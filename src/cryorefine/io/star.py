"""STAR files: named blocks, each a table (loop) or a list of single values.

The grammar is the part of STAR that RELION 3.0 to 5 write and read: ``data_NAME`` starts a block;
``loop_`` followed by labels and rows is a table; labels with one value each are a list; ``#`` starts
a comment at the beginning of a word; values with blanks stand in single or double quotes.
"""

from cryorefine.io._star_read import Block, as_frame, read_columns, read_star
from cryorefine.io._star_write import as_columns, write_star
from cryorefine.io.columns import Columns

__all__ = ["Block", "Columns", "as_columns", "as_frame", "read_columns", "read_star", "write_star"]
