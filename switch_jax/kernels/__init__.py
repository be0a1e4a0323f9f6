"""Pallas kernels for TPU.

Functions of arrays that know nothing of models, configs or meshes.
"""
