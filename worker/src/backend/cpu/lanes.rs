//! Sixteen F32 lanes at every instruction level: the only arithmetic of the wide kernels.
//!
//! A product is rounded before it is added (never fused), so that every level gives the same bits.
#![expect(unsafe_code, reason = "vector loads and instructions")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m256, __m512, _mm_loadu_si128, _mm256_add_ps, _mm256_castsi256_ps, _mm256_cvtepu16_epi32, _mm256_cvtph_ps,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_mul_ps, _mm256_set1_ps, _mm256_slli_epi32, _mm256_storeu_ps,
    _mm512_add_ps, _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_cvtph_ps, _mm512_loadu_ps, _mm512_mul_ps,
    _mm512_set1_ps, _mm512_slli_epi32, _mm512_storeu_ps,
};

use half::{bf16, f16};

/// Number of lanes; element k of a sum goes to lane k mod 16.
pub(super) const LANES: usize = 16;

/// Sixteen F32 numbers of one instruction level.
///
/// # Safety
/// Every function must be called on a CPU that has the level; every load reads sixteen elements.
pub(super) trait Lanes: Copy {
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load_f32(from: *const f32) -> Self;
    unsafe fn load_bf16(from: *const bf16) -> Self;
    unsafe fn load_f16(from: *const f16) -> Self;
    /// self + a · b, the product rounded first.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    unsafe fn times(self, other: Self) -> Self;
    unsafe fn to_array(self) -> [f32; LANES];
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

/// Up to sixteen elements, the other lanes 0.
///
/// # Safety
/// As [`Lanes`]; `count` < 16 elements are read.
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

#[derive(Clone, Copy)]
pub(super) struct Scalar([f32; LANES]);

impl Lanes for Scalar {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; LANES])
    }
    #[inline(always)]
    unsafe fn load_f32(from: *const f32) -> Self {
        // SAFETY: sixteen elements are readable.
        Self(unsafe { from.cast::<[f32; LANES]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: sixteen elements are readable.
        let bits = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        Self(bits.map(|b| f32::from_bits(u32::from(b) << 16)))
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: sixteen elements are readable.
        let bits = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        Self(bits.map(crate::formats::f16::widen))
    }
    #[inline(always)]
    unsafe fn add_product(mut self, a: Self, b: Self) -> Self {
        for i in 0..LANES {
            self.0[i] += a.0[i] * b.0[i];
        }
        self
    }
    #[inline(always)]
    unsafe fn times(mut self, other: Self) -> Self {
        for i in 0..LANES {
            self.0[i] *= other.0[i];
        }
        self
    }
    #[inline(always)]
    unsafe fn to_array(self) -> [f32; LANES] {
        self.0
    }
}

#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Avx2(__m256, __m256);

#[cfg(target_arch = "x86_64")]
impl Lanes for Avx2 {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller has AVX2.
        unsafe { Self(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
    }
    #[inline(always)]
    unsafe fn load_f32(from: *const f32) -> Self {
        // SAFETY: sixteen elements are readable; the caller has AVX2.
        unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: sixteen elements are readable; the caller has AVX2.
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(8).cast()));
            let widened = (_mm256_slli_epi32::<16>(low), _mm256_slli_epi32::<16>(high));
            Self(_mm256_castsi256_ps(widened.0), _mm256_castsi256_ps(widened.1))
        }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: sixteen elements are readable; the caller has AVX2 and F16C.
        unsafe {
            let low = _mm256_cvtph_ps(_mm_loadu_si128(from.cast()));
            Self(low, _mm256_cvtph_ps(_mm_loadu_si128(from.add(8).cast())))
        }
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller has AVX2.
        unsafe {
            let low = _mm256_add_ps(self.0, _mm256_mul_ps(a.0, b.0));
            Self(low, _mm256_add_ps(self.1, _mm256_mul_ps(a.1, b.1)))
        }
    }
    #[inline(always)]
    unsafe fn times(self, other: Self) -> Self {
        // SAFETY: the caller has AVX2.
        unsafe { Self(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn to_array(self) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        // SAFETY: sixteen elements on the stack; the caller has AVX2.
        unsafe {
            _mm256_storeu_ps(lanes.as_mut_ptr(), self.0);
            _mm256_storeu_ps(lanes.as_mut_ptr().add(8), self.1);
        }
        lanes
    }
}

#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Avx512(__m512);

#[cfg(target_arch = "x86_64")]
impl Lanes for Avx512 {
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
    unsafe fn to_array(self) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        // SAFETY: sixteen elements on the stack; the caller has AVX-512.
        unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), self.0) };
        lanes
    }
}
