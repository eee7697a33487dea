//! One unit of an extended resource: a whole GPU, a share of one, or a MIG slice, as nodes are labelled.
//!
//! Reads `RESOURCE.product` and `RESOURCE.memory` (MiB), which NVIDIA's GPU feature discovery writes for
//! `nvidia.com/gpu` and for each `nvidia.com/mig-PROFILE`; anybody may write them for another resource. Never guesses
//! a memory: without label and catalogue it is unknown.

use std::collections::BTreeMap;

use super::Catalogue;

/// What is known of one kind of device of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accelerator {
    /// Units that the node offers.
    pub count: u64,
    /// Product, from the node's labels.
    pub product: Option<String>,
    /// Memory of one unit in bytes.
    pub memory_bytes: Option<u64>,
    /// How fast one unit is.
    pub speed: Option<Speed>,
}

/// Peak rates of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speed {
    /// Bytes of its memory read in a second.
    pub bandwidth: u64,
    /// Dense BF16 operations in a second.
    pub flops: u64,
}

/// Compute slices of a whole GPU, as MIG counts them: `1g` is one of seven.
const MIG_SLICES: u64 = 7;

impl Accelerator {
    /// What labels and catalogue say of `count` units of `resource`.
    pub(super) fn of((resource, count): (&str, u64), labels: &BTreeMap<String, String>, catalogue: &Catalogue) -> Self {
        let resource = unshared(resource);
        let label = |part: &str| labels.get(&label_of(resource, part));
        let number = |part: &str| label(part).and_then(|text| text.parse::<u64>().ok());
        let profile = resource.strip_prefix("nvidia.com/mig-");
        let whole = labels.get("nvidia.com/gpu.product").filter(|_| profile.is_some());
        let product = label("product").or(whole).cloned();
        let known = product.as_deref().and_then(|product| catalogue.find(product));
        let slice = profile.or_else(|| product.as_deref()?.split_once("-MIG-").map(|(_, profile)| profile));
        let slice = slice.and_then(Slice::parse);
        // A shared GPU is offered several times; its memory and its time are divided.
        let shares = number("replicas").unwrap_or(1).max(1);
        let fallback = || slice.map(|slice| slice.memory_bytes).or(known.map(|known| known.memory_bytes));
        let memory = number("memory").and_then(|mib| mib.checked_mul(1 << 20)).or_else(fallback);
        let speed = known.map(|known| {
            let whole = known.speed;
            let Some(slice) = slice else { return whole };
            let part = memory.unwrap_or(slice.memory_bytes).min(known.memory_bytes);
            Speed {
                bandwidth: scaled(whole.bandwidth, part, known.memory_bytes),
                flops: scaled(whole.flops, slice.compute.min(MIG_SLICES), MIG_SLICES),
            }
        });
        let speed =
            speed.map(|Speed { bandwidth, flops }| Speed { bandwidth: bandwidth / shares, flops: flops / shares });
        Self { count, product, memory_bytes: memory.map(|bytes| bytes / shares), speed }
    }
}

/// The label of a node that says `part` (`product`, `memory` in MiB) of its devices.
pub fn label_of(resource: &str, part: &str) -> String {
    format!("{}.{part}", unshared(resource))
}

fn unshared(resource: &str) -> &str {
    resource.strip_suffix(".shared").unwrap_or(resource)
}

fn scaled(rate: u64, part: u64, whole: u64) -> u64 {
    let scaled = u128::from(rate) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(scaled).unwrap_or(rate)
}

/// A MIG profile: `2g.20gb`, with or without a suffix such as `.me`.
#[derive(Clone, Copy)]
struct Slice {
    compute: u64,
    memory_bytes: u64,
}

impl Slice {
    fn parse(profile: &str) -> Option<Self> {
        let (compute, rest) = profile.split_once("g.")?;
        let memory: u64 = rest.split_once("gb")?.0.parse().ok()?;
        // The name rounds, so it is taken for the smaller, decimal unit.
        Some(Self { compute: compute.parse().ok()?, memory_bytes: memory.checked_mul(1_000_000_000)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H100: &str = "NVIDIA-H100-80GB-HBM3";

    fn read(resource: &str, labels: &[(&str, &str)]) -> Accelerator {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Accelerator::of((resource, 4), &labels, &Catalogue::default())
    }

    fn gpu(memory_mib: u64, bandwidth: u64, flops: u64) -> (Option<u64>, Option<Speed>) {
        (Some(memory_mib << 20), Some(Speed { bandwidth, flops }))
    }

    #[test]
    fn a_whole_gpu_has_the_memory_of_its_label_and_the_speed_of_the_catalogue() {
        let labels = [("nvidia.com/gpu.product", H100), ("nvidia.com/gpu.memory", "81559")];
        let found = read("nvidia.com/gpu", &labels);
        assert_eq!((found.memory_bytes, found.speed), gpu(81_559, 3_350_000_000_000, 989_000_000_000_000));
        assert_eq!((found.count, found.product.as_deref()), (4, Some(H100)));
        let without = read("nvidia.com/gpu", &labels[..1]);
        assert_eq!(without.memory_bytes, Some(81_559 << 20), "the catalogue knows it too");
    }

    #[test]
    fn a_shared_gpu_is_divided_by_its_replicas() {
        let labels = [("nvidia.com/gpu.product", H100), ("nvidia.com/gpu.replicas", "4")];
        for resource in ["nvidia.com/gpu", "nvidia.com/gpu.shared"] {
            let found = read(resource, &labels);
            assert_eq!(found.memory_bytes, Some((81_559 << 20) / 4), "{resource}");
            assert_eq!(found.speed.unwrap().bandwidth, 3_350_000_000_000 / 4);
        }
    }

    #[test]
    fn a_mig_slice_has_its_part_of_the_whole_in_both_strategies() {
        let single =
            [("nvidia.com/gpu.product", "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb"), ("nvidia.com/gpu.memory", "9984")];
        let mixed = [
            ("nvidia.com/gpu.product", H100),
            ("nvidia.com/mig-1g.10gb.product", "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb"),
            ("nvidia.com/mig-1g.10gb.memory", "9984"),
        ];
        let bandwidth = 3_350_000_000_000 * 9984 / 81_559;
        let expected = gpu(9984, bandwidth, 989_000_000_000_000 / 7);
        let found = read("nvidia.com/gpu", &single);
        assert_eq!((found.memory_bytes, found.speed), expected);
        let found = read("nvidia.com/mig-1g.10gb", &mixed);
        assert_eq!((found.memory_bytes, found.speed), expected);
        let unlabelled = read("nvidia.com/mig-2g.20gb.me", &mixed);
        assert_eq!(unlabelled.memory_bytes, Some(20_000_000_000), "the profile's name says it");
    }

    #[test]
    fn a_device_of_which_nothing_is_known_has_no_memory_and_no_speed() {
        let found = read("nvidia.com/gpu", &[("nvidia.com/gpu.product", "NVIDIA-Z999")]);
        assert_eq!((found.memory_bytes, found.speed), (None, None));
        let labelled = read("example.com/igpu", &[("example.com/igpu.memory", "2048")]);
        assert_eq!((labelled.memory_bytes, labelled.speed), (Some(2 << 30), None));
    }
}
