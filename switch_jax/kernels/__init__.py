"""Pallas kernels for TPU, and products for a CPU.

Functions of arrays that know nothing of models, configs or meshes.
"""
