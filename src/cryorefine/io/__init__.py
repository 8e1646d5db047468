"""Files: STAR tables, MRC maps and stacks, particle sets, MTF curves."""
