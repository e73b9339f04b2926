//! The instructions of AVX-512 for the recorded operations.

use iced_x86::Code;

use super::super::record::Prim;

/// Instructions for one width of elements.
#[derive(Clone, Copy)]
pub(super) struct Codes {
    /// Whether elements are f64.
    pub(super) double: bool,
}

impl Codes {
    fn pick(self, single: Code, double: Code) -> Code {
        if self.double { double } else { single }
    }

    /// To a register. A mask counts elements, so moves are of their width too.
    pub(super) fn load(self) -> Code {
        self.pick(Code::EVEX_Vmovups_zmm_k1z_zmmm512, Code::EVEX_Vmovupd_zmm_k1z_zmmm512)
    }

    /// From a register.
    pub(super) fn store(self) -> Code {
        self.pick(Code::EVEX_Vmovups_zmmm512_k1z_zmm, Code::EVEX_Vmovupd_zmmm512_k1z_zmm)
    }

    /// From a register past the caches, to a multiple of a vector.
    pub(super) fn store_past(self) -> Code {
        self.pick(Code::EVEX_Vmovntps_m512_zmm, Code::EVEX_Vmovntpd_m512_zmm)
    }

    /// One element from memory to all lanes.
    pub(super) fn broadcast(self) -> Code {
        self.pick(Code::EVEX_Vbroadcastss_zmm_k1z_xmmm32, Code::EVEX_Vbroadcastsd_zmm_k1z_xmmm64)
    }

    /// Of one argument, with the immediate operand it may have.
    pub(super) fn unary(self, prim: Prim) -> Option<(Code, Option<i32>)> {
        // Rounding down and to the nearest, without a flag for inexact results.
        let (down, nearest) = (0b1001, 0b1000);
        Some(match prim {
            Prim::Sqrt => (
                self.pick(Code::EVEX_Vsqrtps_zmm_k1z_zmmm512b32_er, Code::EVEX_Vsqrtpd_zmm_k1z_zmmm512b64_er),
                None,
            ),
            Prim::RecipEstimate => (
                self.pick(Code::EVEX_Vrcp14ps_zmm_k1z_zmmm512b32, Code::EVEX_Vrcp14pd_zmm_k1z_zmmm512b64),
                None,
            ),
            Prim::RsqrtEstimate => (
                self.pick(Code::EVEX_Vrsqrt14ps_zmm_k1z_zmmm512b32, Code::EVEX_Vrsqrt14pd_zmm_k1z_zmmm512b64),
                None,
            ),
            Prim::Floor | Prim::Round => (
                self.pick(
                    Code::EVEX_Vrndscaleps_zmm_k1z_zmmm512b32_imm8_sae,
                    Code::EVEX_Vrndscalepd_zmm_k1z_zmmm512b64_imm8_sae,
                ),
                Some(if prim == Prim::Floor { down } else { nearest }),
            ),
            Prim::ShlMantissa => (
                self.pick(
                    Code::EVEX_Vpslld_zmm_k1z_zmmm512b32_imm8,
                    Code::EVEX_Vpsllq_zmm_k1z_zmmm512b64_imm8,
                ),
                Some(self.mantissa()),
            ),
            Prim::ShrMantissa => (
                self.pick(
                    Code::EVEX_Vpsrld_zmm_k1z_zmmm512b32_imm8,
                    Code::EVEX_Vpsrlq_zmm_k1z_zmmm512b64_imm8,
                ),
                Some(self.mantissa()),
            ),
            _ => return None,
        })
    }

    /// A comparison, with its immediate operand: the ordered, quiet ones.
    pub(super) fn compare(self, prim: Prim) -> (Code, i32) {
        let code = self.pick(
            Code::EVEX_Vcmpps_kr_k1_zmm_zmmm512b32_imm8_sae,
            Code::EVEX_Vcmppd_kr_k1_zmm_zmmm512b64_imm8_sae,
        );
        let how = match prim {
            Prim::Lt => 0x11,
            Prim::Le => 0x12,
            _ => 0x00,
        };
        (code, how)
    }

    /// The third operand where the mask is set, else the second.
    pub(super) fn blend(self) -> Code {
        self.pick(Code::EVEX_Vblendmps_zmm_k1z_zmm_zmmm512b32, Code::EVEX_Vblendmpd_zmm_k1z_zmm_zmmm512b64)
    }

    fn mantissa(self) -> i32 {
        if self.double { 52 } else { 23 }
    }

    /// Of two arguments.
    pub(super) fn binary(self, prim: Prim) -> Option<Code> {
        let (single, double) = match prim {
            Prim::Add => {
                (Code::EVEX_Vaddps_zmm_k1z_zmm_zmmm512b32_er, Code::EVEX_Vaddpd_zmm_k1z_zmm_zmmm512b64_er)
            }
            Prim::Sub => {
                (Code::EVEX_Vsubps_zmm_k1z_zmm_zmmm512b32_er, Code::EVEX_Vsubpd_zmm_k1z_zmm_zmmm512b64_er)
            }
            Prim::Mul => {
                (Code::EVEX_Vmulps_zmm_k1z_zmm_zmmm512b32_er, Code::EVEX_Vmulpd_zmm_k1z_zmm_zmmm512b64_er)
            }
            Prim::Div => {
                (Code::EVEX_Vdivps_zmm_k1z_zmm_zmmm512b32_er, Code::EVEX_Vdivpd_zmm_k1z_zmm_zmmm512b64_er)
            }
            Prim::MaxOr => {
                (Code::EVEX_Vmaxps_zmm_k1z_zmm_zmmm512b32_sae, Code::EVEX_Vmaxpd_zmm_k1z_zmm_zmmm512b64_sae)
            }
            Prim::MinOr => {
                (Code::EVEX_Vminps_zmm_k1z_zmm_zmmm512b32_sae, Code::EVEX_Vminpd_zmm_k1z_zmm_zmmm512b64_sae)
            }
            Prim::And => (Code::EVEX_Vandps_zmm_k1z_zmm_zmmm512b32, Code::EVEX_Vandpd_zmm_k1z_zmm_zmmm512b64),
            Prim::Or => (Code::EVEX_Vorps_zmm_k1z_zmm_zmmm512b32, Code::EVEX_Vorpd_zmm_k1z_zmm_zmmm512b64),
            Prim::Xor => (Code::EVEX_Vxorps_zmm_k1z_zmm_zmmm512b32, Code::EVEX_Vxorpd_zmm_k1z_zmm_zmmm512b64),
            Prim::Scalef => (
                Code::EVEX_Vscalefps_zmm_k1z_zmm_zmmm512b32_er,
                Code::EVEX_Vscalefpd_zmm_k1z_zmm_zmmm512b64_er,
            ),
            _ => return None,
        };
        Some(self.pick(single, double))
    }

    /// `dst·3rd + 2nd` (132), `2nd·dst + 3rd` (213) or `2nd·3rd + dst` (231).
    pub(super) fn form(self, negated: bool, order: u32) -> Code {
        let (single, double) = match (negated, order) {
            (false, 132) => (
                Code::EVEX_Vfmadd132ps_zmm_k1z_zmm_zmmm512b32_er,
                Code::EVEX_Vfmadd132pd_zmm_k1z_zmm_zmmm512b64_er,
            ),
            (false, 213) => (
                Code::EVEX_Vfmadd213ps_zmm_k1z_zmm_zmmm512b32_er,
                Code::EVEX_Vfmadd213pd_zmm_k1z_zmm_zmmm512b64_er,
            ),
            (false, _) => (
                Code::EVEX_Vfmadd231ps_zmm_k1z_zmm_zmmm512b32_er,
                Code::EVEX_Vfmadd231pd_zmm_k1z_zmm_zmmm512b64_er,
            ),
            (true, 132) => (
                Code::EVEX_Vfnmadd132ps_zmm_k1z_zmm_zmmm512b32_er,
                Code::EVEX_Vfnmadd132pd_zmm_k1z_zmm_zmmm512b64_er,
            ),
            (true, 213) => (
                Code::EVEX_Vfnmadd213ps_zmm_k1z_zmm_zmmm512b32_er,
                Code::EVEX_Vfnmadd213pd_zmm_k1z_zmm_zmmm512b64_er,
            ),
            (true, _) => (
                Code::EVEX_Vfnmadd231ps_zmm_k1z_zmm_zmmm512b32_er,
                Code::EVEX_Vfnmadd231pd_zmm_k1z_zmm_zmmm512b64_er,
            ),
        };
        self.pick(single, double)
    }
}
