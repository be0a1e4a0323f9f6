"""Pallas kernels for TPUs, and operations that platforms compute in forms of their own.

They are functions of arrays that know nothing of models and configs.
"""
