"""Operations of a decode step on a GPU: few kernels, each a torch operation with a plain twin for the CPU."""
