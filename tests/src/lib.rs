//! Harness of the acceptance tests: fleets of real worker processes, a real control plane, a real node.
//!
//! Nothing in the product depends on this crate.

pub mod cluster;
pub mod fault_page;
pub mod fleet;
pub mod inside;
pub mod monitoring;
pub mod mutations;
pub mod node;
pub mod paths;
pub mod require;
pub mod seeds;
pub mod steady;
pub mod sums;
pub mod up;
