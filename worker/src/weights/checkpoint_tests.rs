use super::*;
use std::io::Write as _;

/// One good file of two tensors, and a verb to spoil it.
struct Files {
    directory: tempfile::TempDir,
    header: String,
    data: Vec<u8>,
}

impl Files {
    fn good() -> Self {
        let header = r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]}}"#;
        Self { directory: tempfile::tempdir().unwrap(), header: header.to_owned(), data: vec![0; 22] }
    }

    fn with_header(mut self, from: &str, to: &str) -> Self {
        assert!(self.header.contains(from), "{from} should be in the good header");
        self.header = self.header.replace(from, to);
        self
    }

    fn with_data(mut self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        change(&mut self.data);
        self
    }

    fn open(&self) -> Result<Checkpoint, WeightsError> {
        let mut file = File::create(self.directory.path().join("model.safetensors")).unwrap();
        file.write_all(&(self.header.len() as u64).to_le_bytes()).unwrap();
        file.write_all(self.header.as_bytes()).unwrap();
        file.write_all(&self.data).unwrap();
        Checkpoint::open(self.directory.path())
    }

    fn problem(&self) -> String {
        self.open().unwrap_err().to_string().rsplit("model.safetensors: ").next().unwrap().to_owned()
    }
}

#[test]
fn a_good_file_gives_its_tensors_by_name_and_shape() {
    let files = Files::good();
    let checkpoint = files.open().unwrap();
    assert_eq!(checkpoint.tensor("a", &[2, 2]).unwrap(), Dtype::F32);
    let mut read = Vec::new();
    let mut keep = |_, bytes: &[u8]| {
        read.extend_from_slice(bytes);
        Ok::<_, WeightsError>(())
    };
    checkpoint.read("b", &mut keep).unwrap();
    assert_eq!(read, vec![0; 6]);
    let shape = checkpoint.tensor("a", &[4]).unwrap_err().to_string();
    assert_eq!(shape, "tensor a has shape [2, 2]; the config asks for [4]");
    let missing = checkpoint.tensor("c", &[4]).unwrap_err().to_string();
    assert_eq!(missing, "tensor c is missing from the model's files");
}

#[test]
fn every_lie_in_a_header_is_refused_by_the_tensor_that_tells_it() {
    let table = [
        (Files::good().with_header("[16,22]", "[15,21]"), "tensor b overlaps the one before it"),
        (Files::good().with_header("[16,22]", "[17,23]"), "1 bytes before tensor b belong to none"),
        (Files::good().with_header("[2,2]", "[2,3]"), "tensor a has shape [2, 3] of F32, but 16 bytes"),
        (Files::good().with_header("[16,22]", "[22,16]"), "tensor b ends at 16, before it begins at 22"),
        (Files::good().with_header("[2,2]", "[1,1,1,2,2]"), "tensor a has 5 dimensions; at most 4 are allowed"),
        (
            Files::good().with_data(|data| data.truncate(20)),
            "tensor b ends at byte 143, the file has 141: it is truncated",
        ),
        (Files::good().with_data(|data| data.push(0)), "1 bytes after the last tensor belong to none"),
    ];
    for (files, expected) in table {
        assert_eq!(files.problem(), expected);
    }
}

#[test]
fn a_header_longer_than_the_file_or_the_limit_is_refused() {
    let files = Files::good();
    let path = files.directory.path().join("model.safetensors");
    for (length, expected) in [(1_u64 << 40, "allowed: 2 to 16777216"), (1 << 20, "the file has 16")] {
        std::fs::write(&path, [length.to_le_bytes(), [0; 8]].concat()).unwrap();
        let problem = Checkpoint::open(files.directory.path()).unwrap_err().to_string();
        assert!(problem.contains(expected), "{problem}");
    }
}

#[test]
fn a_weight_that_is_nan_is_refused_with_its_place() {
    let files = Files::good().with_data(|data| data[8..12].copy_from_slice(&f32::NAN.to_le_bytes()));
    let error = files.open().unwrap().read::<WeightsError>("a", |_, _| Ok(())).unwrap_err();
    assert_eq!(error.to_string(), "tensor a holds a number that is not finite at element 2");
}

#[test]
fn an_index_cannot_lead_out_of_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let index = directory.path().join("model.safetensors.index.json");
    std::fs::write(index, r#"{"weight_map":{"a":"../other.safetensors"}}"#).unwrap();
    let problem = Checkpoint::open(directory.path()).unwrap_err().to_string();
    assert!(problem.contains("\"../other.safetensors\" is not the name of a safetensors file"), "{problem}");
}

/// `tests/gen/blocks.py` wrote gpt-oss's layout and what transformers makes of it; here it stands under a model's names.
#[test]
fn an_expert_of_gpt_oss_is_read_as_mxfp4_blocks_with_gate_and_up_apart() {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/formats.safetensors");
    let bytes = std::fs::read(fixture).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let view = |name: &str| file.tensor(&format!("gpt_oss.{name}")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let named = ["gate_up_proj", "down_proj"]
        .map(|stack| ["blocks", "scales"].map(|end| (format!("model.layers.0.mlp.experts.{stack}_{end}"), view(end))));
    let path = directory.path().join("model.safetensors");
    safetensors::serialize_to_file(named.into_iter().flatten(), None, &path).unwrap();
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let expected: Vec<f32> = crate::formats::f32::read(view("expected").data()).collect();
    // [2 experts, 4 rows, 96 columns].
    let (rows, cols) = (4, 96);
    for (part, first, step) in [("gate_proj", 0, 2), ("up_proj", 1, 2), ("down_proj", 0, 1)] {
        for expert in 0..2 {
            let name = format!("model.layers.0.mlp.experts.{expert}.{part}.weight");
            assert_eq!(checkpoint.tensor(&name, &[rows / step, cols]).unwrap(), Dtype::Mxfp4);
            let mut read = Vec::new();
            let keep = |offset: usize, piece: &[u8]| {
                assert_eq!(offset, read.len());
                read.extend_from_slice(piece);
                Ok::<_, WeightsError>(())
            };
            checkpoint.read(&name, keep).unwrap();
            let mut ours = vec![0.0; rows / step * cols];
            assert_eq!(read.len(), Dtype::Mxfp4.bytes_of(ours.len()));
            Dtype::Mxfp4.widen(&read, &mut ours);
            let meant = (first..rows).step_by(step).flat_map(|row| &expected[(expert * rows + row) * cols..][..cols]);
            assert_eq!(ours, meant.copied().collect::<Vec<_>>(), "{name}");
        }
    }
    assert!(!checkpoint.has("model.layers.0.mlp.experts.2.up_proj.weight"));
    let wrong = checkpoint.tensor("model.layers.0.mlp.experts.1.up_proj.weight", &[4, 96]).unwrap_err().to_string();
    assert_eq!(
        wrong,
        "tensor model.layers.0.mlp.experts.1.up_proj.weight has shape [2, 96]; the config asks for [4, 96]"
    );
}
