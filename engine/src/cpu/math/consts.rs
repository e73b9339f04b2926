//! Constants of the elementary functions, by type.

/// See the module. Bit masks, ranges and coefficients.
#[allow(missing_docs)]
pub trait Consts: Sized + Copy + 'static {
    /// Only the sign bit.
    const SIGN: Self;
    /// All but the sign bit.
    const NOT_SIGN: Self;
    const HALF: Self;
    const TWO: Self;
    const INF: Self;
    const NAN: Self;
    /// `1.5 * 2^m + bias`, with `m` mantissa bits: see `Vector::exp2i`.
    const EXP_MAGIC: Self;
    /// `2^m`.
    const MANTISSA_UNIT: Self;
    /// Only the mantissa bits.
    const MANTISSA: Self;
    /// Exponent bias less 1.
    const BIAS_LESS_ONE: Self;
    /// Smallest normal number.
    const MIN_NORMAL: Self;
    /// `2^(m + 2)`, which makes every denormal number normal, and its exponent.
    const DENORMAL_SCALE: (Self, Self);
    const SQRT_HALF: Self;
    /// Squares that are exact enough in a sum, and their sum far from infinity.
    const SQUARE_RANGE: (Self, Self);
    /// A power of 2 that makes squares of all numbers below that range normal, and its reciprocal, which does so
    /// above.
    const SQUARE_SCALE: (Self, Self);

    /// `log2(e)`.
    const LOG2_E: Self;
    /// `ln 2` in two parts; products of the first with an exponent are exact.
    const LN2: (Self, Self);
    /// Below, `exp` is 0; above, it overflows.
    const EXP_RANGE: (Self, Self);
    /// Below, `expm1` is −1.
    const EXPM1_LOW: Self;
    /// `(exp(r) - 1 - r) / r²` on `|r| <= ln(2)/2`: the Taylor series, highest power first.
    const EXP: &'static [Self];
    /// `R(z)/z` of `log(1+f) = f - f²/2 + s(f²/2 + R(s²))`, `s = f/(2+f)` (fdlibm), highest power first.
    const LOG: &'static [Self];

    /// `π/2` in three parts, each all of its mantissa.
    const HALF_PI: (Self, Self, Self);
    /// `2/π`.
    const TWO_OVER_PI: Self;
    /// Largest argument whose reduction is exact enough.
    const TRIG_LIMIT: Self;
    /// `(sin(r)/r - 1)/r²` on `|r| <= π/4` (Cephes), highest power first.
    const SIN: &'static [Self];
    /// `(cos(r) - 1 + r²/2)/r⁴` on `|r| <= π/4` (Cephes), highest power first.
    const COS: &'static [Self];
}

impl Consts for f32 {
    const SIGN: f32 = -0.0;
    const NOT_SIGN: f32 = f32::from_bits(0x7fff_ffff);
    const HALF: f32 = 0.5;
    const TWO: f32 = 2.0;
    const INF: f32 = f32::INFINITY;
    const NAN: f32 = f32::NAN;
    const EXP_MAGIC: f32 = 12_582_912.0 + 127.0;
    const MANTISSA_UNIT: f32 = 8_388_608.0;
    const MANTISSA: f32 = f32::from_bits(0x007f_ffff);
    const BIAS_LESS_ONE: f32 = 126.0;
    const MIN_NORMAL: f32 = f32::MIN_POSITIVE;
    const DENORMAL_SCALE: (f32, f32) = (33_554_432.0, 25.0);
    const SQRT_HALF: f32 = std::f32::consts::FRAC_1_SQRT_2;
    const SQUARE_RANGE: (f32, f32) = (1e-30, 1e37);
    const SQUARE_SCALE: (f32, f32) = (f32::from_bits((127 + 96) << 23), f32::from_bits((127 - 96) << 23));

    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN2: (f32, f32) = (f32::from_bits(0x3f31_7200), 1.428_606_8e-6);
    const EXP_RANGE: (f32, f32) = (-105.0, 89.0);
    const EXPM1_LOW: f32 = -30.0;
    const EXP: &'static [f32] = &[1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5];
    const LOG: &'static [f32] = &[0.242_790_79, 0.284_987_87, 0.400_009_72, 0.666_666_6];

    const HALF_PI: (f32, f32, f32) =
        (std::f32::consts::FRAC_PI_2, f32::from_bits(0xb33b_bd2e), f32::from_bits(0xa6f7_2ced));
    const TWO_OVER_PI: f32 = std::f32::consts::FRAC_2_PI;
    const TRIG_LIMIT: f32 = 1e5;
    const SIN: &'static [f32] = &[-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1];
    const COS: &'static [f32] = &[2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2];
}

impl Consts for f64 {
    const SIGN: f64 = -0.0;
    const NOT_SIGN: f64 = f64::from_bits(0x7fff_ffff_ffff_ffff);
    const HALF: f64 = 0.5;
    const TWO: f64 = 2.0;
    const INF: f64 = f64::INFINITY;
    const NAN: f64 = f64::NAN;
    const EXP_MAGIC: f64 = 6_755_399_441_055_744.0 + 1023.0;
    const MANTISSA_UNIT: f64 = 4_503_599_627_370_496.0;
    const MANTISSA: f64 = f64::from_bits(0x000f_ffff_ffff_ffff);
    const BIAS_LESS_ONE: f64 = 1022.0;
    const MIN_NORMAL: f64 = f64::MIN_POSITIVE;
    const DENORMAL_SCALE: (f64, f64) = (18_014_398_509_481_984.0, 54.0);
    const SQRT_HALF: f64 = std::f64::consts::FRAC_1_SQRT_2;
    const SQUARE_RANGE: (f64, f64) = (1e-290, 1e306);
    const SQUARE_SCALE: (f64, f64) = (f64::from_bits((1023 + 600) << 52), f64::from_bits((1023 - 600) << 52));

    const LOG2_E: f64 = std::f64::consts::LOG2_E;
    const LN2: (f64, f64) = (6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10);
    const EXP_RANGE: (f64, f64) = (-746.0, 710.0);
    const EXPM1_LOW: f64 = -60.0;
    const EXP: &'static [f64] = &[
        1.0 / 6_227_020_800.0,
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
    ];
    const LOG: &'static [f64] = &[
        1.479_819_860_511_658_6e-1,
        1.531_383_769_920_937_3e-1,
        1.818_357_216_161_805e-1,
        2.222_219_843_214_978_4e-1,
        2.857_142_874_366_239e-1,
        3.999_999_999_940_942e-1,
        6.666_666_666_666_735e-1,
    ];

    const HALF_PI: (f64, f64, f64) =
        (std::f64::consts::FRAC_PI_2, 6.123_233_995_736_766e-17, -1.497_384_904_859_169_8e-33);
    const TWO_OVER_PI: f64 = std::f64::consts::FRAC_2_PI;
    const TRIG_LIMIT: f64 = 1e5;
    const SIN: &'static [f64] = &[
        1.589_623_015_765_465_7e-10,
        -2.505_074_776_285_780_7e-8,
        2.755_731_362_138_572_5e-6,
        -1.984_126_982_958_954e-4,
        8.333_333_333_322_118e-3,
        -1.666_666_666_666_663e-1,
    ];
    const COS: &'static [f64] = &[
        -1.135_853_652_138_768_2e-11,
        2.087_570_084_197_473e-9,
        -2.755_731_417_929_674e-7,
        2.480_158_728_885_170_4e-5,
        -1.388_888_888_887_305_6e-3,
        4.166_666_666_666_659e-2,
    ];
}
