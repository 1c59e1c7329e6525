//! AST and arguments become stages of steps. All of it is pure: [`plan()`] says which
//! stages there are and what each is built on, [`StageConfig::apply`] says what one
//! instruction asks for once the configuration below it is known, and [`key`] names
//! a step for the cache.

pub mod check;
mod copy;
mod cycle;
mod devices;
pub mod entitlement;
pub mod epoch;
pub mod error;
pub mod format;
pub mod key;
mod metadata;
mod mounts;
pub mod outline;
pub mod parts;
pub mod plan;
mod ports;
pub mod scope;
pub mod step;
pub mod supported;
pub mod walk;

pub use copy::{CopySource, CopyStep};
pub use entitlement::Entitlement;
pub use error::Error;
pub use plan::{Base, Plan, PlannedStage, Request, StageRef, plan};
pub use scope::Scope;
pub use step::{Applied, RunStep, StageConfig, Step};
