"""Bytes to NumPy arrays and back: JSON, .npy, .npz, raw bytes, pictures. Nothing about operators or HTTP belongs here.

Every reader checks shape and dtype against the limits before it allocates, and raises only service.errors. What it
returns is C-contiguous, aligned and in native byte order; it is a read-only view of the body where that is possible.
"""
