//! Benchmarks of ocibuild.
