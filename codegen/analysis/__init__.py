"""Facts about kernels: accesses, costs."""
