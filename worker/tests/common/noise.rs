//! Random weights of every format, the same on every machine.

use shoal_worker::program::Dtype;

/// SplitMix64. Steele, Lea and Flood 2014.
pub(crate) struct Random(u64);

impl Random {
    /// A stream for a name.
    pub(crate) fn of(name: &str, seed: u64) -> Self {
        let fold = |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(name.bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed, fold))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// In (−1, 1).
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// `count` numbers of about `rms`: random bits under scales of that size.
pub(crate) fn weights(random: &mut Random, dtype: Dtype, count: usize, rms: f32) -> Vec<u8> {
    // A uniform number in (−1, 1) has RMS 1/√3.
    let number = |random: &mut Random| random.unit() * rms * 3_f32.sqrt();
    match dtype {
        Dtype::F32 => return (0..count).flat_map(|_| number(random).to_le_bytes()).collect(),
        Dtype::Bf16 => return (0..count).flat_map(|_| half::bf16::from_f32(number(random)).to_le_bytes()).collect(),
        Dtype::F16 => return (0..count).flat_map(|_| half::f16::from_f32(number(random)).to_le_bytes()).collect(),
        _ => {}
    }
    let mut bytes = vec![0; dtype.bytes_of(count)];
    for eight in bytes.chunks_mut(8) {
        let drawn = random.next().to_le_bytes();
        eight.copy_from_slice(&drawn[..eight.len()]);
    }
    // Place of the scale, RMS of what it multiplies, and the minimum in scales, in the two bytes behind.
    let (at, unscaled, minimum) = match dtype {
        Dtype::Q8_0 => (0, 74.0, None),
        Dtype::Q4_0 => (0, 4.6, None),
        Dtype::Q5_0 => (0, 9.2, None),
        Dtype::Q5_1 => (0, 9.2, Some(-15.5)),
        Dtype::Iq4Nl => (0, 68.0, None),
        Dtype::Q4K => (0, 37.0 * 4.6, Some(7.5)),
        Dtype::Q5K => (0, 37.0 * 9.2, Some(15.5)),
        Dtype::Q6K => (208, 74.0 * 18.5, None),
        _ => (0, 5.6, None),
    };
    for block in bytes.chunks_exact_mut(dtype.block().1) {
        let scale = rms / unscaled * (1.0 + 0.5 * random.unit());
        if dtype == Dtype::Mxfp4 {
            block[0] = (128.0 + scale.log2().round()) as u8;
            continue;
        }
        let mut put = |at: usize, x: f32| block[at..at + 2].copy_from_slice(&half::f16::from_f32(x).to_le_bytes());
        put(at, scale);
        if let Some(minimum) = minimum {
            put(at + 2, scale * minimum);
        }
    }
    bytes
}
