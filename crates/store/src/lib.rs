//! The task table of the build service.
