"""Read the faces of many images with many processes, on one machine or a cluster, through Ray Data.

    plan     sources -> blocks: folders, globs, lists, tables, videos, object stores
    blocks   block -> images, opened by a worker; ``stores`` opens objects
    worker   block -> rows, in a process that may end without loss
    output   rows -> partitions, the manifest of those that are complete, and resuming
    run      distribute: the driver, which starts or joins Ray and puts it all together

The driver writes the plan into the output folder, and gives Ray Data a row for each block that the manifest does not
name. Each actor of the pool reads one block at a time, and returns the content of its Parquet file, which the driver
writes. So only the driver needs the output folder, the memory holds the rows of a few blocks, and the order of the rows
is that of the plan, whichever worker is first.
"""

from mien.cluster.run import Distributed, distribute

__all__ = ["Distributed", "distribute"]
