//! Instruction levels of the CPU's kernels. Every level gives the same bits. Never reads the environment.

use std::fmt;
use std::str::FromStr;

use crate::backend::BackendError;

/// Instruction level, lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// What every CPU of the architecture has.
    Scalar,
    /// AVX2 with F16C.
    Avx2,
    /// AVX-512 F, BW and VL.
    Avx512,
}

impl Level {
    /// Every level, lowest first.
    pub const ALL: [Self; 3] = [Self::Scalar, Self::Avx2, Self::Avx512];

    /// The name in options and in the numerics id.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// Whether this machine has the level's instructions.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
        }
    }

    /// The highest level of this machine.
    #[must_use]
    pub fn detect() -> Self {
        Self::ALL.into_iter().rev().find(|level| level.is_available()).unwrap_or(Self::Scalar)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = BackendError;

    fn from_str(name: &str) -> Result<Self, BackendError> {
        Self::ALL.into_iter().find(|level| level.name() == name).ok_or_else(|| {
            BackendError::Misuse(format!("CPU level {name:?} is unknown; allowed: scalar, avx2, avx512"))
        })
    }
}

/// A level that this machine has: the proof that kernels of that level may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Available(Level);

impl Available {
    /// # Errors
    /// [`BackendError::Misuse`] when this machine lacks the level.
    pub(super) fn check(level: Level) -> Result<Self, BackendError> {
        if level.is_available() {
            return Ok(Self(level));
        }
        let best = Level::detect();
        Err(BackendError::Misuse(format!("this CPU lacks level {level}; its highest level is {best}")))
    }

    pub(super) fn level(self) -> Level {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_read_back_from_its_name_and_an_unknown_one_is_refused() {
        for level in Level::ALL {
            assert_eq!(level.name().parse(), Ok(level));
        }
        let refused = "sse9".parse::<Level>().unwrap_err().to_string();
        assert_eq!(refused, "CPU level \"sse9\" is unknown; allowed: scalar, avx2, avx512");
        assert!(Level::detect().is_available());
    }
}
