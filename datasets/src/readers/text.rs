//! Text as numbered symbols: the word and the character format of Mikolov's Penn Treebank files.
//!
//! - Words: one sentence a line, words separated by blanks; the end of a line is the word `<eos>`.
//! - Characters: symbols at the even byte offsets, a blank at every odd one; `_` is the blank between words
//!   and
//!   the line feed ends a sentence.

use std::collections::HashMap;
use std::path::Path;

use crate::error::{Error, Result};

/// No file of text is larger.
const LIMIT: u64 = 1 << 28;

/// Word that ends a sentence.
pub const END: &str = "<eos>";
/// Word that stands for rare words.
pub const UNKNOWN: &str = "<unk>";

/// Symbols and their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    symbols: Vec<String>,
    numbers: HashMap<String, i32>,
}

impl Vocabulary {
    fn new(symbols: Vec<String>) -> Vocabulary {
        let numbers = symbols.iter().enumerate().map(|(i, s)| (s.clone(), i as i32)).collect();
        Vocabulary { symbols, numbers }
    }

    /// The words of a text by falling frequency, equals in alphabetical order.
    pub fn by_frequency(words: &[&str]) -> Vocabulary {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for word in words {
            *counts.entry(word).or_default() += 1;
        }
        let mut order: Vec<(&str, usize)> = counts.into_iter().collect();
        order.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        Vocabulary::new(order.into_iter().map(|(w, _)| w.to_string()).collect())
    }

    /// The symbols of a text in alphabetical order.
    pub fn alphabetical(symbols: &[&str]) -> Vocabulary {
        let mut order: Vec<&str> = symbols.to_vec();
        order.sort_unstable();
        order.dedup();
        Vocabulary::new(order.into_iter().map(str::to_string).collect())
    }

    /// Number of symbols.
    pub fn len(&self) -> usize {
        self.symbols.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }

    /// Symbol of a number.
    pub fn symbol(&self, number: i32) -> Option<&str> {
        usize::try_from(number).ok().and_then(|i| self.symbols.get(i)).map(String::as_str)
    }

    /// Number of a symbol.
    pub fn number(&self, symbol: &str) -> Option<i32> {
        self.numbers.get(symbol).copied()
    }

    /// The numbers of a text; a symbol that is not there is [`UNKNOWN`]. Errors: a symbol that is not there
    /// in a vocabulary without [`UNKNOWN`]; `path` is for messages.
    pub fn encode(&self, path: &Path, symbols: &[&str]) -> Result<Vec<i32>> {
        let unknown = self.number(UNKNOWN);
        symbols
            .iter()
            .enumerate()
            .map(|(i, symbol)| {
                self.number(symbol).or(unknown).ok_or_else(|| {
                    Error::data(
                        path,
                        format!("symbol {i} is {symbol:?}, which the training text does not have"),
                    )
                })
            })
            .collect()
    }
}

/// The whole of a text file, plain or gzip. Errors: too large, not UTF-8.
pub fn read(path: &Path) -> Result<String> {
    super::read_text(path, LIMIT)
}

/// The words of a text, [`END`] after each line. Errors: no words.
pub fn words<'a>(path: &Path, text: &'a str) -> Result<Vec<&'a str>> {
    let words: Vec<&str> =
        text.lines().flat_map(|line| line.split_whitespace().chain(std::iter::once(END))).collect();
    if words.iter().all(|w| *w == END) {
        return Err(Error::data(path, "no words"));
    }
    Ok(words)
}

/// The symbols of a text in the character format. With `join_unknown` the five symbols `<unk>` become one.
/// Errors: an odd offset without a blank, a last symbol without its blank, characters outside ASCII, no
/// symbols.
pub fn characters<'a>(path: &Path, text: &'a str, join_unknown: bool) -> Result<Vec<&'a str>> {
    let fail = |reason: String| Err(Error::data(path, reason));
    if let Some(i) = text.bytes().position(|b| !b.is_ascii()) {
        return fail(format!("byte {i} is 0x{:02x}, expected ASCII", text.as_bytes()[i]));
    }
    if !text.len().is_multiple_of(2) || text.is_empty() {
        return fail(format!("{} bytes, expected pairs of a symbol and a blank", text.len()));
    }
    if let Some(i) = text.bytes().skip(1).step_by(2).position(|b| b != b' ') {
        return fail(format!("byte {} is 0x{:02x}, expected a blank", 2 * i + 1, text.as_bytes()[2 * i + 1]));
    }
    let mut symbols = Vec::with_capacity(text.len() / 2);
    let mut at = 0;
    while at < text.len() {
        if join_unknown && text[at..].starts_with("< u n k > ") {
            symbols.push(UNKNOWN);
            at += 2 * UNKNOWN.len();
        } else {
            symbols.push(&text[at..at + 1]);
            at += 2;
        }
    }
    Ok(symbols)
}
