"""What a GPU would be asked to do, counted without one (`make bench-gpu-counts`)."""
