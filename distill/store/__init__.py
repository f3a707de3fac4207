"""Files of a run: atomic writes, digests, HDF5 artefacts and the run folder itself."""
