//! Known GPUs: memory, bandwidth, dense BF16 rate. The one table; the chart's `gpuCatalogue` and
//! `shoal plan --catalogue` add to it.
//!
//! Memory is what `nvidia-smi` shows, rates are those of the vendor's data sheets without sparsity. Never used where a
//! node's labels say otherwise.

use serde::Deserialize;

use super::Speed;

/// MiB, GB/s, TFLOP/s, by the words of the product's name that decide.
const PRODUCTS: [(&str, u64, u64, u64); 22] = [
    ("B200", 183_359, 8000, 2250),
    ("GH200", 97_871, 4000, 990),
    ("H200", 143_771, 4800, 989),
    ("H20", 97_871, 4000, 148),
    ("H100-NVL", 95_830, 3900, 835),
    ("H100-PCIe", 81_559, 2000, 756),
    ("H100", 81_559, 3350, 989),
    ("A100-SXM4-40GB", 40_960, 1555, 312),
    ("A100-PCIE-40GB", 40_960, 1555, 312),
    ("A100-80GB-PCIe", 81_920, 1935, 312),
    ("A100", 81_920, 2039, 312),
    ("A30", 24_576, 933, 165),
    ("L40S", 46_068, 864, 362),
    ("L40", 46_068, 864, 181),
    ("A40", 46_068, 696, 150),
    ("L4", 23_034, 300, 121),
    ("A10", 23_028, 600, 125),
    ("A10G", 23_028, 600, 70),
    // No BF16: the rates of FP16.
    ("T4", 15_360, 320, 65),
    ("V100-SXM2-16GB", 16_384, 900, 125),
    ("V100-SXM2-32GB", 32_768, 900, 125),
    ("V100", 16_384, 900, 125),
];

/// Most entries that may be added.
pub const MAX_ENTRIES: usize = 64;
/// The longest name of a product, as a label's value.
const MAX_NAME: usize = 63;
/// The largest memory of one device, in GiB.
const MAX_GIB: f64 = 4096.0;
/// The highest rate, in GB/s and in TFLOP/s.
const MAX_RATE: f64 = 100_000.0;

/// One product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Words of its name, e.g. `H100-NVL`.
    pub product: String,
    /// Memory of one device.
    pub memory_bytes: u64,
    /// Its peak rates.
    pub speed: Speed,
}

/// The table, added entries first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalogue(Vec<Known>);

/// Why entries cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// Neither JSON nor YAML of a list of entries.
    #[error("gpuCatalogue is not a list of {{product, memoryGiB, bandwidthGBps, bf16Tflops}}: {0}")]
    Syntax(#[from] serde_yaml::Error),
    /// Too many.
    #[error("gpuCatalogue has {0} entries; at most {MAX_ENTRIES} are allowed")]
    TooMany(usize),
    /// No product of a label.
    #[error("gpuCatalogue[{index}].product {product:?} is not 1 to {MAX_NAME} of the characters A-Z a-z 0-9 . _ -")]
    Product {
        /// From 0.
        index: usize,
        /// What was given.
        product: String,
    },
    /// A number that no device has.
    #[error("gpuCatalogue[{index}].{field} is {found}; it must be above 0 and at most {most}")]
    Number {
        /// From 0.
        index: usize,
        /// The field.
        field: &'static str,
        /// What was given.
        found: f64,
        /// The bound.
        most: f64,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Entry {
    product: String,
    #[serde(rename = "memoryGiB")]
    memory_gib: f64,
    #[serde(rename = "bandwidthGBps")]
    bandwidth_gbps: f64,
    bf16_tflops: f64,
}

impl Default for Catalogue {
    /// The built-in table.
    fn default() -> Self {
        let known = |(product, mib, gigabytes, tera): &(&str, u64, u64, u64)| Known {
            product: (*product).to_owned(),
            memory_bytes: mib << 20,
            speed: Speed { bandwidth: gigabytes * 1_000_000_000, flops: tera * 1_000_000_000_000 },
        };
        Self(PRODUCTS.iter().map(known).collect())
    }
}

impl Catalogue {
    /// The built-in table behind the entries of a JSON or YAML list.
    ///
    /// # Errors
    /// [`CatalogueError`], naming the entry, the field and its bound.
    pub fn extended(text: &str) -> Result<Self, CatalogueError> {
        let entries: Vec<Entry> = serde_yaml::from_str(text)?;
        if entries.len() > MAX_ENTRIES {
            return Err(CatalogueError::TooMany(entries.len()));
        }
        let added = entries.into_iter().enumerate().map(|(index, entry)| entry.check(index));
        let mut known = added.collect::<Result<Vec<_>, _>>()?;
        known.extend(Self::default().0);
        Ok(Self(known))
    }

    /// The entry whose words stand side by side in the product's name; the one of most words, the first of equals.
    #[must_use]
    pub fn find(&self, product: &str) -> Option<&Known> {
        let words = words(product);
        let matching = self.0.iter().rev().filter_map(|known| {
            let wanted = self::words(&known.product);
            words.windows(wanted.len().max(1)).any(|window| window == wanted).then_some((wanted.len(), known))
        });
        // Of equal ones the last is kept, and the order is reversed.
        matching.max_by_key(|(length, _)| *length).map(|(_, known)| known)
    }
}

fn words(product: &str) -> Vec<String> {
    product.split(['-', '_', ' ']).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

impl Entry {
    fn check(self, index: usize) -> Result<Known, CatalogueError> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let named = (1..=MAX_NAME).contains(&self.product.len()) && self.product.chars().all(good);
        if !named || words(&self.product).is_empty() {
            return Err(CatalogueError::Product { index, product: self.product });
        }
        let checked = |field, found: f64, most: f64| {
            let error = CatalogueError::Number { index, field, found, most };
            if found > 0.0 && found <= most { Ok(found) } else { Err(error) }
        };
        let memory = checked("memoryGiB", self.memory_gib, MAX_GIB)?;
        let bandwidth = checked("bandwidthGBps", self.bandwidth_gbps, MAX_RATE)?;
        let tera = checked("bf16Tflops", self.bf16_tflops, MAX_RATE)?;
        let speed = Speed { bandwidth: whole(bandwidth * 1e9), flops: whole(tera * 1e12) };
        Ok(Known { product: self.product, memory_bytes: whole(memory * f64::from(1 << 30)), speed })
    }
}

/// A checked positive number as an integer of at least 1.
fn whole(number: f64) -> u64 {
    // Bounded far below 2^63 by the checks.
    (number as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_entry_is_found_by_whole_words() {
        let catalogue = Catalogue::default();
        let memory =
            |product: &str| catalogue.find(product).map(|known| (known.product.as_str(), known.speed.bandwidth));
        for (product, entry, gigabytes) in [
            ("NVIDIA-H100-80GB-HBM3", "H100", 3350),
            ("NVIDIA-H100-NVL", "H100-NVL", 3900),
            ("NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", "H100", 3350),
            ("NVIDIA-A100-SXM4-40GB", "A100-SXM4-40GB", 1555),
            ("NVIDIA-A100-SXM4-80GB", "A100", 2039),
            ("NVIDIA-A10", "A10", 600),
            ("NVIDIA-A10G", "A10G", 600),
            ("NVIDIA-L40S", "L40S", 864),
            ("NVIDIA-L4", "L4", 300),
            ("NVIDIA-GH200-480GB", "GH200", 4000),
            ("Tesla-T4", "T4", 320),
        ] {
            assert_eq!(memory(product), Some((entry, gigabytes * 1_000_000_000)), "{product}");
        }
        assert_eq!(memory("NVIDIA-Z999"), None);
    }

    #[test]
    fn added_entries_come_before_the_built_in_ones() {
        let text = r#"[{"product": "H100", "memoryGiB": 64, "bandwidthGBps": 1500.5, "bf16Tflops": 500}]"#;
        let catalogue = Catalogue::extended(text).unwrap();
        let found = catalogue.find("NVIDIA-H100-80GB-HBM3").unwrap();
        assert_eq!((found.memory_bytes, found.speed.bandwidth), (64 << 30, 1_500_500_000_000));
        assert_eq!(catalogue.find("NVIDIA-H100-NVL").unwrap().memory_bytes, 95_830 << 20, "more words still win");
    }

    #[test]
    fn a_wrong_entry_is_named_with_its_field_and_bound() {
        let entry = |product: &str, memory: &str, bandwidth: &str, flops: &str| {
            format!("- {{product: {product}, memoryGiB: {memory}, bandwidthGBps: {bandwidth}, bf16Tflops: {flops}}}\n")
        };
        let good = entry("A1", "1", "1", "1");
        let table = [
            good.clone() + &entry("A1", "0", "1", "1"),
            entry("A1", "4097", "1", "1"),
            entry("A1", ".nan", "1", "1"),
            entry("A1", "1", "-1", "1"),
            entry("A1", "1", "1", "1e9"),
            entry("\"a b\"", "1", "1", "1"),
            entry("\"\"", "1", "1", "1"),
            entry("\"-\"", "1", "1", "1"),
            entry("A1, price: 3", "1", "1", "1"),
            "- {product: A1}\n".to_owned(),
            "product: A1".to_owned(),
            good.repeat(65),
        ];
        let table = table.iter().map(|text| Catalogue::extended(text).unwrap_err().to_string());
        insta::assert_snapshot!(table.collect::<Vec<_>>().join("\n"));
        assert_eq!(Catalogue::extended("[]").unwrap(), Catalogue::default());
    }
}
