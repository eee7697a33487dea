//! The wire of Shoal: what clients call ([`inference`]), what the shards of a group say to one another
//! ([`shard`]), and the one message from operator to worker ([`placement`]).
//!
//! Never holds behaviour beyond encoding and checking of messages.

pub mod placement;

/// `shoal.inference.v1alpha1`: Generate, DescribeModel, CountTokens.
#[allow(missing_docs, clippy::all, unreachable_pub, unused_qualifications)]
pub mod inference {
    tonic::include_proto!("shoal.inference.v1alpha1");
}

/// `shoal.shard.v1alpha1`: Hello, Exchange and Placement.
#[allow(missing_docs, clippy::all, unreachable_pub, unused_qualifications)]
pub mod shard {
    tonic::include_proto!("shoal.shard.v1alpha1");
}

/// The encoded `FileDescriptorSet` of all packages, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/shoal.bin"));

/// The service name whose health means "this group answers".
pub const INFERENCE_SERVICE: &str = "shoal.inference.v1alpha1.Inference";

/// Raised whenever the golden bytes of a shard message change. Part of [`shard::Identity`].
pub const SHARD_PROTOCOL_VERSION: u32 = 2;
