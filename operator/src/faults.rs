//! Faults that a test may order between the operator and its API server. Never set in production: the flag is hidden and
//! its use is logged.
//!
//! Never decides what the operator does about a fault; it only makes one.

mod body;
mod call;
mod layer;
mod rule;

pub use self::layer::InjectFaults;
pub use self::rule::{ApiFaults, Fault, Rule, UnknownFault};
