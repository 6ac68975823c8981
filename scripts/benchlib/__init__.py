"""The benchmark's parts: data, systems, a light client, workloads, and the table they end in.

Nothing here imports the archive: it is measured from outside, as its neighbours are.
"""
