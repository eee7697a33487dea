//! Writes GGUF files, good ones and bad ones.

use shoal_worker::program::Dtype;

/// A file to be.
#[derive(Clone)]
pub(crate) struct Writer {
    pub(crate) magic: [u8; 4],
    pub(crate) version: u32,
    pub(crate) keys: Vec<(String, Vec<u8>)>,
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) alignment: usize,
    /// Instead of the numbers of keys and tensors.
    pub(crate) counts: (Option<u64>, Option<u64>),
}

/// One tensor; `offset` is chosen where it is `None`.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    /// Outermost first.
    pub(crate) shape: Vec<u64>,
    pub(crate) kind: u32,
    pub(crate) offset: Option<u64>,
    pub(crate) data: Vec<u8>,
}

pub(crate) fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// The number of a dtype's type.
pub(crate) fn kind(dtype: Dtype) -> u32 {
    match dtype {
        Dtype::F32 => 0,
        Dtype::F16 => 1,
        Dtype::Q4_0 => 2,
        Dtype::Q5_0 => 6,
        Dtype::Q5_1 => 7,
        Dtype::Q8_0 => 8,
        Dtype::Q4K => 12,
        Dtype::Q5K => 13,
        Dtype::Q6K => 14,
        Dtype::Iq4Nl => 20,
        Dtype::Bf16 => 30,
        Dtype::Mxfp4 => 39,
        other => panic!("GGUF has no {other:?}"),
    }
}

impl Writer {
    pub(crate) fn new(architecture: &str) -> Self {
        let (keys, tensors) = (Vec::new(), Vec::new());
        let mut writer = Self { magic: *b"GGUF", version: 3, keys, tensors, alignment: 32, counts: (None, None) };
        writer.text("general.architecture", architecture);
        writer
    }

    /// A value as its type and bytes.
    pub(crate) fn raw(&mut self, key: &str, kind: u32, value: &[u8]) {
        self.keys.retain(|(name, _)| name != key);
        self.keys.push((key.to_owned(), [&kind.to_le_bytes(), value].concat()));
    }

    pub(crate) fn whole(&mut self, key: &str, value: u32) {
        self.raw(key, 4, &value.to_le_bytes());
    }

    pub(crate) fn float(&mut self, key: &str, value: f32) {
        self.raw(key, 6, &value.to_le_bytes());
    }

    pub(crate) fn truth(&mut self, key: &str, value: bool) {
        self.raw(key, 7, &[u8::from(value)]);
    }

    pub(crate) fn text(&mut self, key: &str, value: &str) {
        self.raw(key, 8, &string(value));
    }

    pub(crate) fn texts(&mut self, key: &str, values: &[String]) {
        let all: Vec<u8> = values.iter().flat_map(|value| string(value)).collect();
        let count = (values.len() as u64).to_le_bytes();
        self.raw(key, 9, &[&8_u32.to_le_bytes()[..], &count, &all].concat());
    }

    pub(crate) fn wholes(&mut self, key: &str, values: &[i32]) {
        let all: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let count = (values.len() as u64).to_le_bytes();
        self.raw(key, 9, &[&5_u32.to_le_bytes()[..], &count, &all].concat());
    }

    pub(crate) fn floats(&mut self, key: &str, values: &[f32]) {
        let all: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let count = (values.len() as u64).to_le_bytes();
        self.raw(key, 9, &[&6_u32.to_le_bytes()[..], &count, &all].concat());
    }

    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize], dtype: Dtype, data: Vec<u8>) {
        let shape = shape.iter().map(|&dim| dim as u64).collect();
        self.tensors.push(Tensor { name: name.to_owned(), shape, kind: kind(dtype), offset: None, data });
    }

    /// The file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.magic);
        out.extend(self.version.to_le_bytes());
        out.extend(self.counts.1.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.counts.0.unwrap_or(self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            out.extend(string(key));
            out.extend(value);
        }
        let mut data: Vec<u8> = Vec::new();
        for tensor in &self.tensors {
            data.resize(data.len().next_multiple_of(self.alignment), 0);
            out.extend(string(&tensor.name));
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&tensor.data);
        }
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.extend(data);
        out
    }
}
