//! Settings by name: what a command line or a configuration file says about a cell or an operator.

use std::collections::BTreeMap;

use crate::error::{Error, Result, nearest};
use crate::init::Init;

/// Values by key, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<String, String>);

impl Settings {
    /// None: every option has its default.
    pub fn new() -> Settings {
        Settings::default()
    }

    /// The same with one more value.
    pub fn with(mut self, key: impl Into<String>, value: impl ToString) -> Settings {
        self.set(key, value);
        self
    }

    /// Sets or replaces a value.
    pub fn set(&mut self, key: impl Into<String>, value: impl ToString) {
        self.0.insert(key.into(), value.to_string());
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Keys and values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those whose key `docs` lists; for settings shared by several owners.
    pub fn known_to(&self, docs: &[OptionDoc]) -> Settings {
        let known = |key: &str| docs.iter().any(|d| d.key == key);
        self.iter().filter(|(k, _)| known(k)).fold(Settings::new(), |s, (k, v)| s.with(k, v))
    }
}

impl<K: Into<String>, V: ToString> FromIterator<(K, V)> for Settings {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(iter: I) -> Settings {
        iter.into_iter().fold(Settings::new(), |s, (k, v)| s.with(k, v))
    }
}

/// One option of a cell or an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionDoc {
    /// Key.
    pub key: &'static str,
    /// Value where none is given.
    pub default: &'static str,
    /// What it does and which values it takes.
    pub doc: &'static str,
}

/// Settings of one owner with its documented options, so that a default stands in one place.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    owner: &'a str,
    docs: &'a [OptionDoc],
    settings: &'a Settings,
}

impl<'a> Options<'a> {
    /// Settings read against documented options. Errors: a key that is not documented.
    pub fn new(owner: &'a str, docs: &'a [OptionDoc], settings: &'a Settings) -> Result<Options<'a>> {
        match settings.iter().find(|(key, _)| !docs.iter().any(|d| d.key == *key)) {
            None => Ok(Options { owner, docs, settings }),
            Some((key, _)) => Err(Error::UnknownKey {
                owner: owner.into(),
                key: key.into(),
                nearest: nearest(key, docs.iter().map(|d| d.key)),
                known: docs.iter().map(|d| d.key.to_string()).collect(),
            }),
        }
    }

    /// The value given, or the documented default.
    pub fn text(&self, key: &str) -> &'a str {
        let default = self.docs.iter().find(|d| d.key == key).map_or("", |d| d.default);
        self.settings.get(key).unwrap_or(default)
    }

    fn parse<T>(&self, key: &str, expected: &str, f: impl Fn(&str) -> Option<T>) -> Result<T> {
        let value = self.text(key);
        f(value).ok_or_else(|| self.bad(key, expected))
    }

    /// The error that says a value does not fit.
    pub fn bad(&self, key: &str, expected: &str) -> Error {
        let value = self.text(key).into();
        Error::Value { owner: self.owner.into(), key: key.into(), value, expected: expected.into() }
    }

    /// `true` or `false` (also `yes`, `no`, `1`, `0`).
    pub fn flag(&self, key: &str) -> Result<bool> {
        self.parse(key, "true or false", |v| match v {
            "true" | "yes" | "1" => Some(true),
            "false" | "no" | "0" => Some(false),
            _ => None,
        })
    }

    /// A finite number.
    pub fn number(&self, key: &str) -> Result<f64> {
        self.parse(key, "a finite number", |v| v.parse().ok().filter(|x: &f64| x.is_finite()))
    }

    /// A whole number; `none` or 0 is none.
    pub fn count(&self, key: &str) -> Result<Option<usize>> {
        self.parse(key, "a whole number, or none", |v| match v {
            "none" => Some(None),
            v => v.parse().ok().map(|n| (n > 0).then_some(n)),
        })
    }

    /// One of several words.
    pub fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<T> {
        let names: Vec<&str> = choices.iter().map(|c| c.0).collect();
        self.parse(key, &names.join(" or "), |v| choices.iter().find(|c| c.0 == v).map(|c| c.1))
    }

    /// An initialization; `auto` is none.
    pub fn init(&self, key: &str) -> Result<Option<Init>> {
        self.parse(key, Init::SYNTAX, |v| if v == "auto" { Some(None) } else { v.parse().ok().map(Some) })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const DOCS: &[OptionDoc] = &[
        OptionDoc { key: "bias", default: "1", doc: "" },
        OptionDoc { key: "norm", default: "false", doc: "" },
    ];

    #[test]
    fn defaults_values_and_errors() {
        let none = Settings::new();
        let o = Options::new("cell", DOCS, &none).unwrap();
        assert_eq!(o.number("bias"), Ok(1.0));
        assert_eq!(o.flag("norm"), Ok(false));
        let some = Settings::new().with("bias", "x").with("norm", true);
        let o = Options::new("cell", DOCS, &some).unwrap();
        assert_eq!(o.flag("norm"), Ok(true));
        let message = o.number("bias").unwrap_err().to_string();
        assert_eq!(message, "cell: setting `bias` = `x`, expected a finite number");
        let typo = Settings::new().with("bais", 2);
        let message = Options::new("cell", DOCS, &typo).unwrap_err().to_string();
        assert_eq!(message, "cell: unknown setting `bais`; did you mean `bias`?");
    }
}
