"""Where work runs: the array module, and executors of chunks."""
