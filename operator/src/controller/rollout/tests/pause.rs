//! A rollout that must not go on.
