//! A world that repeats from its seed, with storage that fails on demand.
