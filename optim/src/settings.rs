//! Settings: `key=value` text turned into checked numbers.

use std::collections::BTreeMap;

use crate::error::{Error, Result, nearest};

/// Settings of one thing to be built, as text by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<String, String>);

/// One setting that an entry of a table understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionSpec {
    /// Key.
    pub key: &'static str,
    /// Value used when the key is not given; text in parentheses is a description, not a value.
    pub default: &'static str,
    /// One line.
    pub summary: &'static str,
}

impl OptionSpec {
    /// A setting with its default and its one line.
    pub const fn new(key: &'static str, default: &'static str, summary: &'static str) -> OptionSpec {
        OptionSpec { key, default, summary }
    }
}

impl Settings {
    /// No settings: everything at its default.
    pub fn new() -> Settings {
        Settings::default()
    }

    /// Reads `key=value` texts; a later one replaces an earlier one of the same key. Errors: text without `=`
    /// or without a key.
    pub fn parse<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> Result<Settings> {
        let mut settings = Settings::new();
        for text in texts {
            let text = text.as_ref();
            match text.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => settings.set(key.trim(), value.trim()),
                _ => return Err(Error::Syntax { got: text.into() }),
            }
        }
        Ok(settings)
    }

    /// Sets `key` to the text of `value`.
    pub fn set(&mut self, key: impl Into<String>, value: impl ToString) {
        self.0.insert(key.into(), value.to_string());
    }

    /// These settings and one more.
    pub fn with(mut self, key: impl Into<String>, value: impl ToString) -> Settings {
        self.set(key, value);
        self
    }

    /// The text of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Keys and texts, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// The settings whose keys start with `prefix`, without it; the second part is the others.
    pub fn split(&self, prefix: &str) -> (Settings, Settings) {
        let (mut inner, mut rest) = (Settings::new(), Settings::new());
        for (key, value) in self.iter() {
            match key.strip_prefix(prefix) {
                Some(key) => inner.set(key, value),
                None => rest.set(key, value),
            }
        }
        (inner, rest)
    }

    /// A reader for `owner`, who understands `options`. Errors: a key not among them.
    pub fn reader<'a>(&'a self, owner: &'static str, options: &'a [OptionSpec]) -> Result<Reader<'a>> {
        for key in self.0.keys() {
            if !options.iter().any(|o| o.key == key) {
                return Err(unknown_key(owner, key, options));
            }
        }
        Ok(Reader { owner, settings: self, options })
    }
}

fn unknown_key(owner: &'static str, key: &str, options: &[OptionSpec]) -> Error {
    let known: Vec<_> = options.iter().map(|o| o.key).collect();
    let nearest = nearest(key, known.iter().copied());
    let known = if known.is_empty() { "none".into() } else { known.join(", ") };
    Error::UnknownKey { owner, key: key.into(), nearest, known }
}

/// Reads checked values out of [`Settings`], with the defaults of the options' table.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    owner: &'static str,
    settings: &'a Settings,
    options: &'a [OptionSpec],
}

impl<'a> Reader<'a> {
    /// Whether the key was given.
    pub fn given(&self, key: &str) -> bool {
        self.settings.get(key).is_some()
    }

    /// The text: as given, or the default. Errors: a key that is in no row of the table.
    pub fn text(&self, key: &str) -> Result<&'a str> {
        let option = self.options.iter().find(|o| o.key == key);
        let option = option.ok_or_else(|| unknown_key(self.owner, key, self.options))?;
        Ok(self.settings.get(key).unwrap_or(option.default))
    }

    fn bad(&self, key: &str, expected: impl Into<String>, got: &str) -> Error {
        Error::Value { owner: self.owner, key: key.into(), expected: expected.into(), got: got.into() }
    }

    /// A number.
    pub fn real(&self, key: &str) -> Result<f64> {
        let text = self.text(key)?;
        text.parse().map_err(|_| self.bad(key, "a number", text))
    }

    /// A number, or `default` where the key was not given.
    pub fn real_or(&self, key: &str, default: f64) -> Result<f64> {
        if self.given(key) { self.real(key) } else { Ok(default) }
    }

    /// A whole number from 0.
    pub fn count(&self, key: &str) -> Result<u64> {
        let text = self.text(key)?;
        text.parse().map_err(|_| self.bad(key, "a whole number", text))
    }

    /// `true` or `false`.
    pub fn flag(&self, key: &str) -> Result<bool> {
        let text = self.text(key)?;
        text.parse().map_err(|_| self.bad(key, "true or false", text))
    }

    /// One of `choices`, upper or lower case.
    pub fn choice<T: Copy>(&self, key: &str, choices: &[(&'static str, T)]) -> Result<T> {
        let text = self.text(key)?;
        choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|&(_, value)| value).ok_or_else(
            || {
                let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
                let near = nearest(text, names.iter().copied());
                let near = near.map(|n| format!(" (did you mean `{n}`?)")).unwrap_or_default();
                self.bad(key, format!("one of {}{near}", names.join(", ")), text)
            },
        )
    }
}

/// A range that a number must lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// Finite.
    Finite,
    /// Finite and at least 0.
    NonNegative,
    /// Finite and more than 0.
    Positive,
    /// At least 0 and less than 1.
    Below1,
    /// From 0 to 1.
    Unit,
}

impl Range {
    /// Errors unless `value` lies in the range.
    pub fn check(self, owner: &'static str, key: &str, value: f64) -> Result<()> {
        let (fits, expected) = match self {
            Range::Finite => (value.is_finite(), "a finite number"),
            Range::NonNegative => (value.is_finite() && value >= 0.0, "a finite number of at least 0"),
            Range::Positive => (value.is_finite() && value > 0.0, "a finite number above 0"),
            Range::Below1 => ((0.0..1.0).contains(&value), "a number from 0 to below 1"),
            Range::Unit => ((0.0..=1.0).contains(&value), "a number from 0 to 1"),
        };
        if fits {
            return Ok(());
        }
        Err(Error::Value { owner, key: key.into(), expected: expected.into(), got: value.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: &[OptionSpec] = &[
        OptionSpec::new("lr", "0.5", "rate"),
        OptionSpec::new("on", "false", "flag"),
        OptionSpec::new("n", "3", "count"),
        OptionSpec::new("kind", "b", "choice"),
    ];

    #[test]
    fn values_and_defaults() -> Result<()> {
        let settings = Settings::parse(["lr = 1e-3", "on=true", "lr=0.25"])?;
        let reader = settings.reader("x", OPTIONS)?;
        assert_eq!(reader.real("lr")?, 0.25);
        assert!(reader.flag("on")?);
        assert_eq!(reader.count("n")?, 3);
        assert_eq!(reader.choice("kind", &[("a", 1), ("B", 2)])?, 2);
        assert_eq!(reader.real_or("n", 9.0)?, 9.0);
        Ok(())
    }

    #[test]
    fn every_error_names_its_culprit() -> Result<()> {
        for text in ["lr", "=3", ""] {
            assert_eq!(Settings::parse([text]), Err(Error::Syntax { got: text.into() }));
        }
        let unknown = Settings::new().with("rl", 1).reader("x", OPTIONS).map(|_| ());
        let message = unknown.map_err(|e| e.to_string());
        assert_eq!(
            message,
            Err("x: unknown setting `rl`, did you mean `lr`?; known: lr, on, n, kind".into())
        );
        let bad = Settings::parse(["lr=x", "on=yes", "n=-1", "kind=c"])?;
        let reader = bad.reader("x", OPTIONS)?;
        let messages = [
            reader.real("lr").map(|_| ()),
            reader.flag("on").map(|_| ()),
            reader.count("n").map(|_| ()),
            reader.choice("kind", &[("a", 1), ("b", 2)]).map(|_| ()),
            reader.text("none").map(|_| ()),
        ];
        let parts = [
            "`lr`, expected a number",
            "`on`, expected true",
            "`n`, expected a whole",
            "one of a, b",
            "`none`",
        ];
        for (message, part) in messages.into_iter().zip(parts) {
            let message = message.err().map(|e| e.to_string()).unwrap_or_default();
            assert!(message.contains(part), "{message} lacks {part}");
        }
        Ok(())
    }

    #[test]
    fn ranges() {
        let rows = [
            (Range::NonNegative, 0.0, true),
            (Range::NonNegative, f64::INFINITY, false),
            (Range::Positive, 0.0, false),
            (Range::Below1, 1.0, false),
            (Range::Below1, f64::NAN, false),
            (Range::Unit, 1.0, true),
        ];
        for (range, value, fits) in rows {
            assert_eq!(range.check("x", "k", value).is_ok(), fits, "{range:?} {value}");
        }
    }
}
