//! Numbers for people: three digits and a unit.

/// Three significant digits, at least the whole part.
fn digits(x: f64) -> String {
    match x {
        x if x >= 99.95 => format!("{x:.0}"),
        x if x >= 9.995 => format!("{x:.1}"),
        x => format!("{x:.2}"),
    }
}

fn scaled(x: f64, base: f64, units: &[&str]) -> String {
    let mut at = 0;
    let mut x = x;
    // 1023.6 KiB would read as 1024 KiB.
    while x >= base - 0.5 && at + 1 < units.len() {
        x /= base;
        at += 1;
    }
    if at == 0 && x.fract() == 0.0 {
        format!("{x} {}", units[0])
    } else {
        format!("{} {}", digits(x), units[at])
    }
}

/// Bytes: `512 B`, `1.50 KiB`.
pub(crate) fn bytes(n: usize) -> String {
    scaled(n as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
}

/// Floating-point operations: `640 flop`, `1.31 Mflop`.
pub(super) fn flops(n: f64) -> String {
    scaled(n, 1000.0, &["flop", "kflop", "Mflop", "Gflop", "Tflop", "Pflop"])
}

/// Seconds: `1.23 ms`.
pub(super) fn seconds(s: f64) -> String {
    let (scale, unit) = match s {
        s if s >= 0.9995 || s <= 0.0 => (1.0, "s"),
        s if s >= 0.9995e-3 => (1e3, "ms"),
        s if s >= 0.9995e-6 => (1e6, "µs"),
        _ => (1e9, "ns"),
    };
    format!("{} {unit}", digits(s * scale))
}

/// A share: `19.5 %`.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// `1 step`, `2 steps`, `12,000 steps`.
pub(crate) fn plural(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// Digits in groups of three: `12,000`.
pub(super) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let table = [
            (bytes(0), "0 B"),
            (bytes(1023), "1023 B"),
            (bytes(1024), "1.00 KiB"),
            (bytes(1536), "1.50 KiB"),
            (bytes(1024 * 1024 - 1), "1.00 MiB"),
            (bytes(123 << 20), "123 MiB"),
            (flops(0.0), "0 flop"),
            (flops(640.0), "640 flop"),
            (flops(1_310_720.0), "1.31 Mflop"),
            (flops(99_960.0), "100 kflop"),
            (seconds(0.0), "0.00 s"),
            (seconds(0.99999), "1.00 s"),
            (seconds(0.001234), "1.23 ms"),
            (seconds(45.6e-6), "45.6 µs"),
            (seconds(120e-9), "120 ns"),
            (percent(0.195), "19.5 %"),
            (plural(1, "step"), "1 step"),
            (plural(12_000, "step"), "12,000 steps"),
            (grouped(999), "999"),
            (grouped(1_234_567), "1,234,567"),
        ];
        for (got, expected) in table {
            assert_eq!(got, expected);
        }
    }
}
