"""The compiler: a scheduled expression in, text out. No torch, triton, files or devices."""
