"""A Dask worker for refinements: ``python -m cryorefine.compute.worker tcp://scheduler:8786``.

Takes the options of ``dask worker``, but first lets matrix products use the processor's best kernels.
"""

from __future__ import annotations

from cryorefine.compute.blas import prefer_wide_kernels

if __name__ == "__main__":
    prefer_wide_kernels()  # before NumPy is loaded; Dask loads it
    from distributed.cli.dask_worker import main

    main()
