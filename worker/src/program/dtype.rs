//! Element types of buffers, single numbers and blocks alike.

use crate::formats::{
    bf16, e4m3, e8m0, f16, f32 as single, iq4_nl, mxfp4, q4_0, q4_k, q5_0, q5_1, q5_k, q6_k, q8_0, widen_blocks,
};

/// Element type of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dtype {
    /// IEEE binary32.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE binary16.
    F16,
    /// Unsigned 32-bit, for ids and counts.
    U32,
    /// FP8 E4M3FN; with [`Scales`](super::Scales), each number is multiplied by its tile's.
    E4m3,
    /// A power of two; for scales only.
    E8m0,
    /// GGUF, blocks of 32.
    Q8_0,
    /// GGUF, blocks of 32.
    Q4_0,
    /// GGUF, blocks of 32.
    Q5_0,
    /// GGUF, blocks of 32.
    Q5_1,
    /// GGUF, blocks of 32.
    Iq4Nl,
    /// OCP, blocks of 32 in GGUF's layout.
    Mxfp4,
    /// GGUF, blocks of 256.
    Q4K,
    /// GGUF, blocks of 256.
    Q5K,
    /// GGUF, blocks of 256.
    Q6K,
}

impl Dtype {
    /// Every element type, in the order of the variants; tests are enumerated from it.
    pub const ALL: [Self; 15] = [
        Self::F32,
        Self::Bf16,
        Self::F16,
        Self::U32,
        Self::E4m3,
        Self::E8m0,
        Self::Q8_0,
        Self::Q4_0,
        Self::Q5_0,
        Self::Q5_1,
        Self::Iq4Nl,
        Self::Mxfp4,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// Elements and bytes of one block; one element where numbers stand alone.
    #[must_use]
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F32 | Self::U32 => (1, 4),
            Self::Bf16 | Self::F16 => (1, 2),
            Self::E4m3 | Self::E8m0 => (1, 1),
            Self::Q8_0 => (q8_0::ELEMENTS, q8_0::BYTES),
            Self::Q4_0 => (q4_0::ELEMENTS, q4_0::BYTES),
            Self::Q5_0 => (q5_0::ELEMENTS, q5_0::BYTES),
            Self::Q5_1 => (q5_1::ELEMENTS, q5_1::BYTES),
            Self::Iq4Nl => (iq4_nl::ELEMENTS, iq4_nl::BYTES),
            Self::Mxfp4 => (mxfp4::ELEMENTS, mxfp4::BYTES),
            Self::Q4K => (q4_k::ELEMENTS, q4_k::BYTES),
            Self::Q5K => (q5_k::ELEMENTS, q5_k::BYTES),
            Self::Q6K => (q6_k::ELEMENTS, q6_k::BYTES),
        }
    }

    /// Bytes of `elements` elements, which are whole blocks; `None` when they are not, or past every memory.
    #[must_use]
    pub fn checked_bytes(self, elements: usize) -> Option<usize> {
        let (numbers, bytes) = self.block();
        elements.is_multiple_of(numbers).then(|| (elements / numbers).checked_mul(bytes)).flatten()
    }

    /// Bytes of `elements` elements; a started block counts whole.
    #[must_use]
    pub fn bytes_of(self, elements: usize) -> usize {
        let (numbers, bytes) = self.block();
        elements.div_ceil(numbers) * bytes
    }

    /// Whether numbers share a block, so that single ones cannot be addressed.
    #[must_use]
    pub fn is_blocked(self) -> bool {
        self.block().0 > 1
    }

    /// The F32 numbers of whole blocks, before tile scales; `out` is as long as `bytes` hold elements.
    pub fn widen(self, bytes: &[u8], out: &mut [f32]) {
        let pairs = || bytes.as_chunks::<2>().0.iter().map(|&pair| u16::from_le_bytes(pair));
        match self {
            Self::F32 => out.iter_mut().zip(single::read(bytes)).for_each(|(out, x)| *out = x),
            Self::Bf16 => out.iter_mut().zip(pairs()).for_each(|(out, x)| *out = bf16::widen(x)),
            Self::F16 => out.iter_mut().zip(pairs()).for_each(|(out, x)| *out = f16::widen(x)),
            Self::U32 => {
                let words = bytes.as_chunks::<4>().0.iter().map(|&word| u32::from_le_bytes(word) as f32);
                out.iter_mut().zip(words).for_each(|(out, x)| *out = x);
            }
            Self::E4m3 => out.iter_mut().zip(bytes).for_each(|(out, &x)| *out = e4m3::widen(x)),
            Self::E8m0 => out.iter_mut().zip(bytes).for_each(|(out, &x)| *out = e8m0::widen(x)),
            Self::Q8_0 => widen_blocks(bytes, out, q8_0::widen),
            Self::Q4_0 => widen_blocks(bytes, out, q4_0::widen),
            Self::Q5_0 => widen_blocks(bytes, out, q5_0::widen),
            Self::Q5_1 => widen_blocks(bytes, out, q5_1::widen),
            Self::Iq4Nl => widen_blocks(bytes, out, iq4_nl::widen),
            Self::Mxfp4 => widen_blocks(bytes, out, mxfp4::widen),
            Self::Q4K => widen_blocks(bytes, out, q4_k::widen),
            Self::Q5K => widen_blocks(bytes, out, q5_k::widen),
            Self::Q6K => widen_blocks(bytes, out, q6_k::widen),
        }
    }

    /// Where the first number stands in whole blocks of `bytes` that cannot be finite, judged by exponents and scales.
    #[must_use]
    pub fn first_not_finite(self, bytes: &[u8]) -> Option<usize> {
        // A float is not finite exactly when all bits of its exponent are set.
        let word =
            |at: usize, mask: u16| move |block: &[u8]| u16::from_le_bytes([block[at], block[at + 1]]) & mask == mask;
        let half = |at| word(at, 0x7c00);
        let (numbers, size) = self.block();
        let mut blocks = bytes.chunks_exact(size);
        let block = match self {
            Self::F32 => blocks.position(word(2, 0x7f80)),
            Self::Bf16 => blocks.position(word(0, 0x7f80)),
            Self::F16 | Self::Q8_0 | Self::Q4_0 | Self::Q5_0 | Self::Iq4Nl => blocks.position(half(0)),
            Self::Q5_1 | Self::Q4K | Self::Q5K => blocks.position(|block| half(0)(block) || half(2)(block)),
            Self::Q6K => blocks.position(half(q6_k::BYTES - 2)),
            Self::E4m3 => bytes.iter().position(|&bits| e4m3::is_nan(bits)),
            Self::E8m0 => bytes.iter().position(|&bits| bits == u8::MAX),
            // The largest number of a block is 12 · 2^(scale − 128).
            Self::Mxfp4 => blocks.position(|block| block[0] > 252),
            Self::U32 => None,
        };
        block.map(|block| block * numbers)
    }
}
