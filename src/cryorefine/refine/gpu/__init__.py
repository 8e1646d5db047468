"""The refinement's inner loops on NVIDIA GPUs: CUDA sources, and the operations that call them."""
