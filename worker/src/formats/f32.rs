//! IEEE binary32 as stored: little-endian.

/// The numbers in `bytes`, four bytes each; a rest of less than four is left out.
pub fn read(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_little_endian() {
        assert_eq!(read(&[0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0, 9]).collect::<Vec<_>>(), [1.0, -2.0]);
    }
}
