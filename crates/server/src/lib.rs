//! The build service: REST to task table to worker to build to log.
