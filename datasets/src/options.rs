//! Options of a task: where its data is, and `key=value` settings.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, nearest};

/// One option of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionDoc {
    /// Key, as written before the `=`.
    pub key: &'static str,
    /// Value if nothing is set.
    pub default: &'static str,
    /// What it does, and which values it takes.
    pub doc: &'static str,
}

impl OptionDoc {
    /// An option.
    pub const fn new(key: &'static str, default: &'static str, doc: &'static str) -> OptionDoc {
        OptionDoc { key, default, doc }
    }
}

/// What a caller asks of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    data: Option<PathBuf>,
    settings: BTreeMap<String, String>,
}

impl Options {
    /// Nothing set.
    pub fn new() -> Options {
        Options::default()
    }

    /// The same with a data folder; no other place is looked at then.
    pub fn with_data(mut self, folder: impl Into<PathBuf>) -> Options {
        self.data = Some(folder.into());
        self
    }

    /// The same with a setting; a later value replaces an earlier one.
    pub fn with(mut self, key: impl Into<String>, value: impl ToString) -> Options {
        self.settings.insert(key.into(), value.to_string());
        self
    }

    /// The data folder asked for.
    pub fn data(&self) -> Option<&Path> {
        self.data.as_deref()
    }

    /// The settings, in order of their keys.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.settings.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// The settings of a task with these options. Errors: a key that is not among them.
    pub fn read(&self, task: &'static str, docs: &'static [OptionDoc]) -> Result<Settings<'_>> {
        let keys = || docs.iter().map(|d| d.key);
        match self.settings.keys().find(|key| keys().all(|k| k != key.as_str())) {
            Some(key) => Err(Error::UnknownOption {
                task,
                key: key.clone(),
                nearest: nearest(key, keys()),
                known: keys().collect::<Vec<_>>().join(", "),
            }),
            None => Ok(Settings { task, docs, options: self, instead: None }),
        }
    }
}

/// Typed access to the settings of one task; what is not set has its documented default.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    task: &'static str,
    docs: &'static [OptionDoc],
    options: &'a Options,
    /// A key and the text that stands for what is set.
    instead: Option<(&'static str, &'static str)>,
}

impl<'a> Settings<'a> {
    /// The options they come from.
    pub fn options(&self) -> &'a Options {
        self.options
    }

    /// The text of a setting. Errors: a key without a documented default.
    pub fn text(&self, key: &'static str) -> Result<&'a str> {
        if let Some((_, value)) = self.instead.filter(|(k, _)| *k == key) {
            return Ok(value);
        }
        match (self.options.settings.get(key), self.docs.iter().find(|d| d.key == key)) {
            (Some(value), _) => Ok(value),
            (None, Some(doc)) => Ok(doc.default),
            (None, None) => Err(Error::UnknownOption {
                task: self.task,
                key: key.into(),
                nearest: nearest(key, self.docs.iter().map(|d| d.key)),
                known: self.docs.iter().map(|d| d.key).collect::<Vec<_>>().join(", "),
            }),
        }
    }

    fn bad<T>(&self, key: &'static str, value: &str, expected: String) -> Result<T> {
        Err(Error::BadOption { task: self.task, key, value: value.into(), expected })
    }

    /// The same with `value` for a key whose text is `word`: a default that depends on another setting.
    pub fn or(&self, key: &'static str, word: &str, value: &'static str) -> Settings<'a> {
        let instead = matches!(self.text(key), Ok(text) if text == word).then_some((key, value));
        Settings { instead, ..*self }
    }

    /// A whole number in a range.
    pub fn integer(&self, key: &'static str, range: RangeInclusive<usize>) -> Result<usize> {
        let text = self.text(key)?;
        match text.replace('_', "").parse() {
            Ok(n) if range.contains(&n) => Ok(n),
            _ => self.bad(key, text, format!("a whole number from {} to {}", range.start(), range.end())),
        }
    }

    /// A seed.
    pub fn seed(&self, key: &'static str) -> Result<u64> {
        let text = self.text(key)?;
        match text.parse() {
            Ok(n) => Ok(n),
            Err(_) => self.bad(key, text, "a whole number below 2^64".into()),
        }
    }

    /// A positive whole number, or the word `all`.
    pub fn limit(&self, key: &'static str) -> Result<Option<usize>> {
        let text = self.text(key)?;
        match text.replace('_', "").parse() {
            _ if text == "all" => Ok(None),
            Ok(n) if n > 0 => Ok(Some(n)),
            _ => self.bad(key, text, "a whole number from 1, or `all`".into()),
        }
    }

    /// Yes or no.
    pub fn flag(&self, key: &'static str) -> Result<bool> {
        match self.text(key)? {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            text => self.bad(key, text, "true or false".into()),
        }
    }

    /// One of a few words.
    pub fn choice(&self, key: &'static str, words: &'static [&'static str]) -> Result<&'static str> {
        let text = self.text(key)?;
        match words.iter().find(|w| **w == text) {
            Some(word) => Ok(word),
            None => {
                let near = nearest(text, words.iter().copied());
                let hint = near.map_or(String::new(), |w| format!(", perhaps {w}"));
                self.bad(key, text, format!("one of {}{hint}", words.join(", ")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCS: &[OptionDoc] = &[
        OptionDoc::new("T", "100", "steps"),
        OptionDoc::new("variant", "fixed", "which"),
        OptionDoc::new("online", "false", "fresh data"),
        OptionDoc::new("train", "all", "how many"),
    ];

    #[test]
    fn defaults_and_values() -> Result<()> {
        let options = Options::new().with("T", "1_000").with("online", "on").with("train", 7);
        let s = options.read("copy", DOCS)?;
        assert_eq!(s.integer("T", 1..=2000)?, 1000);
        assert!(s.flag("online")?);
        assert_eq!(s.limit("train")?, Some(7));
        assert_eq!(s.choice("variant", &["fixed", "free"])?, "fixed");
        assert_eq!(s.or("variant", "fixed", "free").choice("variant", &["fixed", "free"])?, "free");
        assert_eq!(s.or("T", "100", "7").integer("T", 1..=2000)?, 1000);
        Ok(())
    }

    #[test]
    fn errors_name_key_and_nearest() -> Result<()> {
        let unknown = Options::new().with("varaint", "x");
        let message = unknown.read("copy", DOCS).err().map(|e| e.to_string()).unwrap_or_default();
        let expected = "task copy: unknown option `varaint`, did you mean `variant`?, \
                        known: T, variant, online, train";
        assert_eq!(message, expected);

        let bad =
            Options::new().with("T", "0").with("variant", "fixd").with("online", "2").with("train", "-1");
        let s = bad.read("copy", DOCS)?;
        let messages = [
            s.integer("T", 1..=9).err().map(|e| e.to_string()),
            s.choice("variant", &["fixed", "free"]).err().map(|e| e.to_string()),
            s.flag("online").err().map(|e| e.to_string()),
            s.limit("train").err().map(|e| e.to_string()),
        ];
        let expected = [
            "task copy: option `T` is `0`, expected a whole number from 1 to 9",
            "task copy: option `variant` is `fixd`, expected one of fixed, free, perhaps fixed",
            "task copy: option `online` is `2`, expected true or false",
            "task copy: option `train` is `-1`, expected a whole number from 1, or `all`",
        ];
        for (got, want) in messages.iter().zip(expected) {
            assert_eq!(got.as_deref(), Some(want));
        }
        Ok(())
    }
}
