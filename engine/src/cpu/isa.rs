//! Which instruction set the kernels use.

use std::sync::OnceLock;

use crate::error::{Error, Result};

/// Environment variable that names the instruction set to use.
pub const ISA_VARIABLE: &str = "RETROGRAD_ISA";

/// An instruction set the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// AVX-512 F and DQ: 512-bit vectors.
    Avx512,
    /// AVX2 and FMA: 256-bit vectors.
    Avx2,
    /// NEON: 128-bit vectors.
    Neon,
    /// No instructions beyond the compilation target's; products round before they are added.
    Portable,
}

impl Isa {
    /// Every instruction set, best first.
    pub const ALL: [Isa; 4] = [Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Portable];

    /// Lower-case name, as in [`ISA_VARIABLE`].
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Neon => "neon",
            Isa::Portable => "portable",
        }
    }

    /// Whether the running CPU has it. Cheap: the standard library caches the answer.
    #[inline]
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("fma")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            Isa::Portable => true,
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }

    /// All that the running CPU has, best first; never empty.
    pub fn available() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// The best the running CPU has.
    pub fn best() -> Isa {
        Isa::ALL.into_iter().find(|isa| isa.is_available()).unwrap_or(Isa::Portable)
    }

    /// The one [`ISA_VARIABLE`] names, or else the best.
    ///
    /// Errors: the variable holds a name that is unknown or not available here.
    pub fn select() -> Result<Isa> {
        match std::env::var_os(ISA_VARIABLE) {
            Some(value) => Isa::by_name(&value.to_string_lossy()),
            None => Ok(Isa::best()),
        }
    }

    /// The available one of this name.
    ///
    /// Errors: unknown, or not available on the running CPU.
    pub fn by_name(name: &str) -> Result<Isa> {
        match Isa::ALL.into_iter().find(|isa| isa.name() == name) {
            Some(isa) if isa.is_available() => Ok(isa),
            found => {
                let have: Vec<_> = Isa::available().into_iter().map(Isa::name).collect();
                let what = if found.is_some() { "is not available on this CPU" } else { "is unknown" };
                Err(Error::argument(
                    ISA_VARIABLE,
                    format!("`{name}` {what}, expected one of {}", have.join(", ")),
                ))
            }
        }
    }

    /// [`Isa::select`] asked once for the process; the best where that fails.
    pub fn detect() -> Isa {
        static ISA: OnceLock<Isa> = OnceLock::new();
        *ISA.get_or_init(|| Isa::select().unwrap_or_else(|_| Isa::best()))
    }
}

impl std::fmt::Display for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_resolve_or_explain() {
        for isa in Isa::ALL {
            assert_eq!(Isa::by_name(isa.name()).is_ok(), isa.is_available(), "{isa}");
        }
        let message = Isa::by_name("sse9").map_err(|e| e.to_string());
        assert!(
            message.as_ref().is_err_and(|m| m.contains("`sse9` is unknown") && m.contains("portable")),
            "{message:?}"
        );
        assert_eq!(Isa::available()[0], Isa::best());
        assert!(Isa::detect().is_available());
    }
}
