"""Runs of suites by several processes, here or on a cluster.

The parent process alone writes results. It sends jobs to workers, each with all files that it needs
(``unit``), in an order in which the longest begin first and programs are compiled once (``order``).
A worker does its job by the code of a serial run, in a folder of its own, and sends back the files
that it wrote. Workers are processes of this machine (``processes``) or those of a Dask cluster
(``cluster``); ``loop`` is the loop of the parent, over cells (``drive``) or over methods of a suite
of training (``methods``).
"""
