//! Types of tensors by their number in the file. Those that no op reads are known too, so that a file holding one can
//! be checked, and refused only if the tensor is asked for.

use crate::program::Dtype;

/// One type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Type {
    number: u32,
    pub(super) name: &'static str,
    /// What ops read it as.
    pub(super) dtype: Option<Dtype>,
    /// Elements of a block.
    pub(super) elements: usize,
    /// Bytes of a block.
    pub(super) bytes: usize,
}

const fn other(number: u32, name: &'static str, elements: usize, bytes: usize) -> Type {
    Type { number, name, dtype: None, elements, bytes }
}

const fn read(number: u32, name: &'static str, dtype: Dtype, elements: usize, bytes: usize) -> Type {
    Type { number, name, dtype: Some(dtype), elements, bytes }
}

pub(super) const TYPES: [Type; 34] = [
    read(0, "F32", Dtype::F32, 1, 4),
    read(1, "F16", Dtype::F16, 1, 2),
    read(2, "Q4_0", Dtype::Q4_0, 32, 18),
    other(3, "Q4_1", 32, 20),
    read(6, "Q5_0", Dtype::Q5_0, 32, 22),
    read(7, "Q5_1", Dtype::Q5_1, 32, 24),
    read(8, "Q8_0", Dtype::Q8_0, 32, 34),
    other(9, "Q8_1", 32, 40),
    other(10, "Q2_K", 256, 84),
    other(11, "Q3_K", 256, 110),
    read(12, "Q4_K", Dtype::Q4K, 256, 144),
    read(13, "Q5_K", Dtype::Q5K, 256, 176),
    read(14, "Q6_K", Dtype::Q6K, 256, 210),
    other(15, "Q8_K", 256, 292),
    other(16, "IQ2_XXS", 256, 66),
    other(17, "IQ2_XS", 256, 74),
    other(18, "IQ3_XXS", 256, 98),
    other(19, "IQ1_S", 256, 50),
    read(20, "IQ4_NL", Dtype::Iq4Nl, 32, 18),
    other(21, "IQ3_S", 256, 110),
    other(22, "IQ2_S", 256, 82),
    other(23, "IQ4_XS", 256, 136),
    other(24, "I8", 1, 1),
    other(25, "I16", 1, 2),
    other(26, "I32", 1, 4),
    other(27, "I64", 1, 8),
    other(28, "F64", 1, 8),
    other(29, "IQ1_M", 256, 56),
    read(30, "BF16", Dtype::Bf16, 1, 2),
    other(34, "TQ1_0", 256, 54),
    other(35, "TQ2_0", 256, 66),
    read(39, "MXFP4", Dtype::Mxfp4, 32, 17),
    other(40, "NVFP4", 64, 36),
    other(41, "Q1_0", 128, 18),
];

pub(super) fn find(number: u32) -> Option<Type> {
    TYPES.into_iter().find(|known| known.number == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_that_ops_read_has_the_blocks_of_its_dtype() {
        for known in TYPES {
            if let Some(dtype) = known.dtype {
                assert_eq!(dtype.block(), (known.elements, known.bytes), "{}", known.name);
            }
            assert_eq!(find(known.number), Some(known));
        }
        assert_eq!([4, 5, 31, 42].map(find), [None; 4]);
    }
}
