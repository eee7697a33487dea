//! Sixteen F32 lanes at every instruction level, whole or in parts: the only arithmetic of the wide kernels.
//!
//! A product is rounded before it is added (never fused), so that every level gives the same bits.
#![expect(unsafe_code, reason = "vector loads and instructions")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m256, __m512, _mm_loadu_si128, _mm256_add_ps, _mm256_castpd_ps, _mm256_castps_pd, _mm256_castsi256_ps,
    _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_mul_ps, _mm256_permute2f128_ps,
    _mm256_set1_ps, _mm256_setzero_pd, _mm256_setzero_ps, _mm256_shuffle_ps, _mm256_slli_epi32, _mm256_storeu_ps,
    _mm256_unpackhi_pd, _mm256_unpacklo_pd, _mm512_add_ps, _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_cvtph_ps,
    _mm512_loadu_ps, _mm512_mul_ps, _mm512_set1_ps, _mm512_slli_epi32, _mm512_storeu_ps,
};

use half::{bf16, f16};

/// Number of lanes; element k of a sum goes to lane k mod 16.
pub(super) const LANES: usize = 16;

/// F32 numbers in registers of one instruction level: all sixteen lanes, or a part of them.
///
/// # Safety
/// Every function must be called on a CPU that has the level; loads and stores are of `WIDTH` elements.
pub(super) trait Lanes: Copy {
    /// Lanes; divides sixteen.
    const WIDTH: usize;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load_f32(from: *const f32) -> Self;
    unsafe fn load_bf16(from: *const bf16) -> Self;
    unsafe fn load_f16(from: *const f16) -> Self;
    /// self + a · b, the product rounded first.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    unsafe fn times(self, other: Self) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// [`sum`] of eight.
    #[inline(always)]
    unsafe fn sums(all: &[[f32; LANES]; 8]) -> [f32; 8] {
        all.map(sum)
    }
}

/// Source format of a weight or of a cache row: widened exactly in registers.
pub(super) trait Format: 'static {
    type Element: Copy + Send + Sync;
    fn widen(element: Self::Element) -> f32;
    /// # Safety
    /// As [`Lanes`].
    unsafe fn load<L: Lanes>(from: *const Self::Element) -> L;
}

pub(super) struct F32;
pub(super) struct Bf16;
pub(super) struct F16;

impl Format for F32 {
    type Element = f32;
    #[inline(always)]
    fn widen(element: f32) -> f32 {
        element
    }
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const f32) -> L {
        // SAFETY: passed on to the caller.
        unsafe { L::load_f32(from) }
    }
}

impl Format for Bf16 {
    type Element = bf16;
    #[inline(always)]
    fn widen(element: bf16) -> f32 {
        f32::from_bits(u32::from(element.to_bits()) << 16)
    }
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const bf16) -> L {
        // SAFETY: passed on to the caller.
        unsafe { L::load_bf16(from) }
    }
}

impl Format for F16 {
    type Element = f16;
    #[inline(always)]
    fn widen(element: f16) -> f32 {
        crate::formats::f16::widen(element.to_bits())
    }
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const f16) -> L {
        // SAFETY: passed on to the caller.
        unsafe { L::load_f16(from) }
    }
}

/// Up to `WIDTH` elements, the other lanes 0.
///
/// # Safety
/// As [`Lanes`]; `count` ≤ `WIDTH` elements are read.
#[inline(always)]
pub(super) unsafe fn load_tail<L: Lanes, F: Format>(from: *const F::Element, count: usize) -> L {
    let mut padded = [0.0; LANES];
    for (i, lane) in padded.iter_mut().enumerate().take(count) {
        // SAFETY: i < count, which the caller vouches for.
        *lane = F::widen(unsafe { *from.add(i) });
    }
    // SAFETY: sixteen elements on the stack.
    unsafe { L::load_f32(padded.as_ptr()) }
}

/// All sixteen lanes in memory.
///
/// # Safety
/// As [`Lanes`]; `L` has sixteen lanes.
#[inline(always)]
pub(super) unsafe fn to_array<L: Lanes>(lanes: L) -> [f32; LANES] {
    const { assert!(L::WIDTH == LANES, "a part is not all lanes") };
    let mut array = [0.0; LANES];
    // SAFETY: sixteen elements on the stack.
    unsafe { lanes.store(array.as_mut_ptr()) };
    array
}

/// The sum of all lanes in one fixed order: halves onto halves.
#[inline(always)]
pub(super) fn sum(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// All sixteen lanes where there is no wide register: whatever the compiler makes of an array.
pub(super) type Scalar = Plain<LANES>;

/// N lanes in an array.
#[derive(Clone, Copy)]
pub(super) struct Plain<const N: usize>([f32; N]);

impl<const N: usize> Lanes for Plain<N> {
    const WIDTH: usize = N;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; N])
    }
    #[inline(always)]
    unsafe fn load_f32(from: *const f32) -> Self {
        // SAFETY: N elements are readable.
        Self(unsafe { from.cast::<[f32; N]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: N elements are readable.
        let bits = unsafe { from.cast::<[u16; N]>().read_unaligned() };
        Self(bits.map(|b| f32::from_bits(u32::from(b) << 16)))
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: N elements are readable.
        let bits = unsafe { from.cast::<[u16; N]>().read_unaligned() };
        Self(bits.map(crate::formats::f16::widen))
    }
    #[inline(always)]
    unsafe fn add_product(mut self, a: Self, b: Self) -> Self {
        for i in 0..N {
            self.0[i] += a.0[i] * b.0[i];
        }
        self
    }
    #[inline(always)]
    unsafe fn times(mut self, other: Self) -> Self {
        for i in 0..N {
            self.0[i] *= other.0[i];
        }
        self
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: N elements are writable.
        unsafe { to.cast::<[f32; N]>().write_unaligned(self.0) };
    }
}

/// All sixteen lanes at AVX2.
#[cfg(target_arch = "x86_64")]
pub(super) type Avx2 = Pair<HalfAvx2>;

/// The lanes of the first, then those of the second.
#[derive(Clone, Copy)]
pub(super) struct Pair<L>(L, L);

impl<L: Lanes> Lanes for Pair<L> {
    const WIDTH: usize = 2 * L::WIDTH;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: passed on to the caller, here and below.
        unsafe { Self(L::splat(value), L::splat(value)) }
    }
    #[inline(always)]
    unsafe fn load_f32(from: *const f32) -> Self {
        // SAFETY: as above.
        unsafe { Self(L::load_f32(from), L::load_f32(from.add(L::WIDTH))) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: as above.
        unsafe { Self(L::load_bf16(from), L::load_bf16(from.add(L::WIDTH))) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: as above.
        unsafe { Self(L::load_f16(from), L::load_f16(from.add(L::WIDTH))) }
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: as above.
        unsafe { Self(self.0.add_product(a.0, b.0), self.1.add_product(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn times(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { Self(self.0.times(other.0), self.1.times(other.1)) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe {
            self.0.store(to);
            self.1.store(to.add(L::WIDTH));
        }
    }
}

/// Eight lanes: one register of AVX2.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct HalfAvx2(__m256);

#[cfg(target_arch = "x86_64")]
impl Lanes for HalfAvx2 {
    const WIDTH: usize = 8;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller has AVX2.
        Self(unsafe { _mm256_set1_ps(value) })
    }
    #[inline(always)]
    unsafe fn load_f32(from: *const f32) -> Self {
        // SAFETY: eight elements are readable; the caller has AVX2.
        Self(unsafe { _mm256_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: eight elements are readable; the caller has AVX2.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide)))
        }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: eight elements are readable; the caller has AVX2 and F16C.
        Self(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) })
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller has AVX2.
        Self(unsafe { _mm256_add_ps(self.0, _mm256_mul_ps(a.0, b.0)) })
    }
    #[inline(always)]
    unsafe fn times(self, other: Self) -> Self {
        // SAFETY: the caller has AVX2.
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: eight elements are writable; the caller has AVX2.
        unsafe { _mm256_storeu_ps(to, self.0) };
    }
    #[inline(always)]
    unsafe fn sums(all: &[[f32; LANES]; 8]) -> [f32; 8] {
        // SAFETY: sixteen elements each; the caller has AVX2.
        unsafe { sums_avx2(all) }
    }
}

/// [`sum`] of eight side by side: what stands in halves of registers is brought into one, and halves are added.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn sums_avx2(all: &[[f32; LANES]; 8]) -> [f32; 8] {
    // SAFETY: sixteen elements each; the caller has AVX2. No closures: they would not have the caller's features.
    unsafe {
        let mut eight = [_mm256_setzero_ps(); 8];
        for (eight, lanes) in eight.iter_mut().zip(all) {
            *eight = _mm256_add_ps(_mm256_loadu_ps(lanes.as_ptr()), _mm256_loadu_ps(lanes.as_ptr().add(8)));
        }
        // Four lanes of one, then four of the next.
        let mut four = [_mm256_setzero_pd(); 4];
        for (i, four) in four.iter_mut().enumerate() {
            let (a, b) = (eight[2 * i], eight[2 * i + 1]);
            let halves = (_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b));
            *four = _mm256_castps_pd(_mm256_add_ps(halves.0, halves.1));
        }
        // Two lanes of the first and third, then of the second and fourth; and so of the others.
        let mut two = [_mm256_setzero_ps(); 2];
        for (i, two) in two.iter_mut().enumerate() {
            let (a, b) = (four[2 * i], four[2 * i + 1]);
            let halves = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
            *two = _mm256_add_ps(_mm256_castpd_ps(halves.0), _mm256_castpd_ps(halves.1));
        }
        let [a, b] = two;
        let one = _mm256_add_ps(_mm256_shuffle_ps::<0x88>(a, b), _mm256_shuffle_ps::<0xdd>(a, b));
        let mut sums = [0.0; 8];
        _mm256_storeu_ps(sums.as_mut_ptr(), one);
        [sums[0], sums[4], sums[1], sums[5], sums[2], sums[6], sums[3], sums[7]]
    }
}

#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Avx512(__m512);

#[cfg(target_arch = "x86_64")]
impl Lanes for Avx512 {
    const WIDTH: usize = 16;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller has AVX-512.
        Self(unsafe { _mm512_set1_ps(value) })
    }
    #[inline(always)]
    unsafe fn load_f32(from: *const f32) -> Self {
        // SAFETY: sixteen elements are readable; the caller has AVX-512.
        Self(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: sixteen elements are readable; the caller has AVX-512.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide)))
        }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: sixteen elements are readable; the caller has AVX-512.
        Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) })
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller has AVX-512.
        Self(unsafe { _mm512_add_ps(self.0, _mm512_mul_ps(a.0, b.0)) })
    }
    #[inline(always)]
    unsafe fn times(self, other: Self) -> Self {
        // SAFETY: the caller has AVX-512.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: sixteen elements are writable; the caller has AVX-512.
        unsafe { _mm512_storeu_ps(to, self.0) };
    }
    #[inline(always)]
    unsafe fn sums(all: &[[f32; LANES]; 8]) -> [f32; 8] {
        // SAFETY: sixteen elements each; AVX-512 includes AVX2.
        unsafe { sums_avx2(all) }
    }
}
