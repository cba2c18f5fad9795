"""Running what was compiled: machine code, memory, threads, devices."""
