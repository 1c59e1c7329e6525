//! The client against our server and against Debian's `docker-registry`, our server
//! against other clients, and both against failures made on purpose.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it should be"
)]

mod alias;
mod certificates;
mod conformance;
mod copies;
mod dialogues;
mod ecr;
mod embedded;
mod growing;
mod hostile;
mod identities;
mod limits;
mod line;
mod login;
mod nginx;
mod parts;
mod phases;
mod registries;
mod retries;
mod server;
mod storm;
mod suite;
mod support;
mod tls;
mod tools;
mod uploads;
