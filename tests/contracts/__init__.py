"""One suite per port, run on the real and on the simulated one."""
