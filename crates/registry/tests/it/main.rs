//! The client against our server and against Debian's `docker-registry`, our server
//! against other clients, and both against failures made on purpose.

mod hostile;
mod login;
mod retries;
mod server;
mod suite;
mod support;
mod tools;
