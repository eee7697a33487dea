//! Who a shard is, and whether two shards may compute together. Never dials.

use shoal_proto::SHARD_PROTOCOL_VERSION;
use shoal_proto::placement::Placement;
use shoal_proto::shard::{Identity, Strategy};

use prost::Message as _;

use crate::model::loaded::ModelInfo;

/// Two shards that may not compute together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} differs: rank {our_rank} has {ours}, rank {their_rank} has {theirs}")]
pub struct Mismatch {
    /// What differs, as in [`Identity`].
    pub field: &'static str,
    /// Who compares.
    pub our_rank: u32,
    /// What it has.
    pub ours: String,
    /// Who was compared.
    pub their_rank: u32,
    /// What it has.
    pub theirs: String,
}

/// The identity of one shard. The stages of a pipeline have no tensor in common whose contents could be compared: there the
/// digest of config, tensor table and sizes must do, and `capacity` says what a step may be.
#[must_use]
pub fn identity(model: &ModelInfo, placement: &Placement, (rank, epoch): (u32, u64), capacity: String) -> Identity {
    let pipeline = placement.strategy() == Strategy::Pipeline;
    let dense = if pipeline { Vec::new() } else { model.dense_digest.to_vec() };
    let fingerprint = blake3::hash(&placement.to_message().encode_to_vec());
    Identity {
        protocol_version: SHARD_PROTOCOL_VERSION,
        epoch,
        rank,
        size: u32::try_from(placement.size()).expect("should fit: a placement has at most 64 shards"),
        model_digest: model.model_digest.to_vec().into(),
        dense_digest: dense.into(),
        placement_fingerprint: fingerprint.as_bytes().to_vec().into(),
        numerics_id: model.numerics_id.clone(),
        capacity: if pipeline { capacity } else { String::new() },
    }
}

/// Compares all that two shards of a group must agree on; the ranks must differ.
///
/// # Errors
/// The first [`Mismatch`].
pub fn compare(ours: &Identity, theirs: &Identity) -> Result<(), Mismatch> {
    let number = |value: u64| value.to_string();
    let fields = [
        ("protocol_version", number(ours.protocol_version.into()), number(theirs.protocol_version.into())),
        ("epoch", number(ours.epoch), number(theirs.epoch)),
        ("size", number(ours.size.into()), number(theirs.size.into())),
        ("model_digest", hex(&ours.model_digest), hex(&theirs.model_digest)),
        ("dense_digest", hex(&ours.dense_digest), hex(&theirs.dense_digest)),
        ("placement_fingerprint", hex(&ours.placement_fingerprint), hex(&theirs.placement_fingerprint)),
        ("numerics_id", ours.numerics_id.clone(), theirs.numerics_id.clone()),
        ("capacity", ours.capacity.clone(), theirs.capacity.clone()),
    ];
    let mismatch = |(field, ours_value, theirs_value)| Mismatch {
        field,
        our_rank: ours.rank,
        ours: ours_value,
        their_rank: theirs.rank,
        theirs: theirs_value,
    };
    if let Some(found) = fields.into_iter().find(|(_, ours, theirs)| ours != theirs) {
        return Err(mismatch(found));
    }
    if theirs.rank == ours.rank || theirs.rank >= ours.size {
        return Err(mismatch(("rank", format!("{} of {}", ours.rank, ours.size), number(theirs.rank.into()))));
    }
    Ok(())
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("should write: a String never fails");
        text
    })
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    fn ours() -> Identity {
        Identity {
            protocol_version: 1,
            epoch: 7,
            rank: 0,
            size: 3,
            model_digest: vec![1, 2].into(),
            dense_digest: vec![3].into(),
            placement_fingerprint: vec![4].into(),
            numerics_id: "cpu".into(),
            capacity: "4 blocks".into(),
        }
    }

    #[test]
    fn shards_that_agree_on_everything_but_the_rank_may_compute_together() {
        assert_eq!(compare(&ours(), &Identity { rank: 2, ..ours() }), Ok(()));
    }

    #[test]
    fn every_field_is_compared_and_both_values_are_named() {
        let peer = Identity { rank: 1, ..ours() };
        let text = |theirs: Identity| compare(&ours(), &theirs).unwrap_err().to_string();
        let cases = [
            (Identity { protocol_version: 2, ..peer.clone() }, "protocol_version differs: rank 0 has 1, rank 1 has 2"),
            (Identity { epoch: 6, ..peer.clone() }, "epoch differs: rank 0 has 7, rank 1 has 6"),
            (Identity { size: 4, ..peer.clone() }, "size differs: rank 0 has 3, rank 1 has 4"),
            (
                Identity { model_digest: vec![1, 255].into(), ..peer.clone() },
                "model_digest differs: rank 0 has 0102, rank 1 has 01ff",
            ),
            (
                Identity { dense_digest: vec![9].into(), ..peer.clone() },
                "dense_digest differs: rank 0 has 03, rank 1 has 09",
            ),
            (
                Identity { placement_fingerprint: vec![5].into(), ..peer.clone() },
                "placement_fingerprint differs: rank 0 has 04, rank 1 has 05",
            ),
            (
                Identity { numerics_id: "gpu".into(), ..peer.clone() },
                "numerics_id differs: rank 0 has cpu, rank 1 has gpu",
            ),
            (
                Identity { capacity: "5 blocks".into(), ..peer.clone() },
                "capacity differs: rank 0 has 4 blocks, rank 1 has 5 blocks",
            ),
            (ours(), "rank differs: rank 0 has 0 of 3, rank 0 has 0"),
            (Identity { rank: 3, ..peer }, "rank differs: rank 0 has 0 of 3, rank 3 has 3"),
        ];
        for (theirs, expected) in cases {
            assert_eq!(text(theirs), expected);
        }
    }
}
