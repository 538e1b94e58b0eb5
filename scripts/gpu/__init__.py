"""Cherry on a GPU: a device made of CPU memory for where there is none, and the check of a real one."""
