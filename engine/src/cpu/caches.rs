//! Sizes of the processor's caches, where the system tells them.

use std::path::Path;
use std::sync::OnceLock;

/// Bytes of the caches that data of the first processor may stay in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caches {
    /// Of the second level, which belongs to one core on server processors; `None` where the system does not say.
    pub second: Option<usize>,
    /// Of the third level, which cores share; `None` where the system does not say.
    pub third: Option<usize>,
}

impl Caches {
    /// Those that Linux lists; none elsewhere.
    pub fn detect() -> Caches {
        static DETECTED: OnceLock<Caches> = OnceLock::new();
        if cfg!(miri) {
            return Caches::default();
        }
        // Asked of the system rather than of the processor's own instruction: it answers alike on all architectures.
        *DETECTED.get_or_init(|| Caches::read(Path::new("/sys/devices/system/cpu/cpu0/cache")))
    }

    fn read(folder: &Path) -> Caches {
        let mut caches = Caches::default();
        for index in 0..8 {
            let of =
                |name: &str| std::fs::read_to_string(folder.join(format!("index{index}")).join(name)).ok();
            let (Some(level), Some(size)) = (of("level"), of("size")) else { break };
            match level.trim() {
                "2" => caches.second = bytes(&size),
                "3" => caches.third = bytes(&size),
                _ => {}
            }
        }
        caches
    }
}

/// `2048K` in bytes.
fn bytes(text: &str) -> Option<usize> {
    let text = text.trim();
    let (number, unit) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 1 << 10),
        b'M' => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    number.parse::<usize>().ok()?.checked_mul(unit).filter(|&n| n > 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_the_system_writes_them() {
        let folder = std::env::temp_dir().join(format!("retrograd-caches-{}", std::process::id()));
        for (index, (level, size)) in [("1", "48K\n"), ("2", "2048K\n"), ("3", "480M\n")].iter().enumerate() {
            let index = folder.join(format!("index{index}"));
            std::fs::create_dir_all(&index).unwrap();
            std::fs::write(index.join("level"), level).unwrap();
            std::fs::write(index.join("size"), size).unwrap();
        }
        assert_eq!(Caches::read(&folder), Caches { second: Some(2 << 20), third: Some(480 << 20) });
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(Caches::read(&folder), Caches::default());
        for wrong in ["", "K", "0K", "-1K", "99999999999999999999M"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }
}
