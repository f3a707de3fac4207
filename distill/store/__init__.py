"""Files that know no recipe: atomic writes, digests, HDF5, snapshots, committees, packed data."""
