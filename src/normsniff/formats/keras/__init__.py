"""Keras and HDF5 files."""
