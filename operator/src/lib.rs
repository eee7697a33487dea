//! Shoal, the operator: one ModelDeployment becomes groups of worker pods.

pub mod cli;
pub mod controller;
pub mod crd;
pub mod faults;
pub mod http;
pub mod inventory;
pub mod lease;
pub mod local;
pub mod manifest;
pub mod metrics;
pub mod names;
pub mod shape;
pub mod timing;
