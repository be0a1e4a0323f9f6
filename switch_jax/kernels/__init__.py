"""Pallas kernels for TPU: functions of arrays that know nothing of models, configs or meshes."""
