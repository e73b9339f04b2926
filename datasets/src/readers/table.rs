//! Tables of numbers as text: one row a line, separated by blanks or commas.

use std::path::Path;

use crate::error::{Error, Result};

/// No table is larger.
const LIMIT: u64 = 1 << 28;

/// Reads a file, plain or gzip. Errors: too large, not text; those of [`parse`].
pub fn read(path: &Path, columns: usize) -> Result<Vec<f32>> {
    parse(path, &super::read_text(path, LIMIT)?, columns)
}

/// The numbers of a text, row by row; `path` is for messages. Errors: a row with another number of columns, what is
/// no finite number, no rows.
pub fn parse(path: &Path, text: &str, columns: usize) -> Result<Vec<f32>> {
    let mut numbers = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let before = numbers.len();
        for word in line.split(|c: char| c == ',' || c.is_whitespace()).filter(|w| !w.is_empty()) {
            match word.parse::<f32>() {
                Ok(x) if x.is_finite() => numbers.push(x),
                _ => {
                    let word: String = word.chars().take(40).collect();
                    return Err(Error::data(path, format!("line {}: {word:?} is no finite number", i + 1)));
                }
            }
        }
        let got = numbers.len() - before;
        if got != columns && got > 0 {
            return Err(Error::data(path, format!("line {}: {got} numbers, expected {columns}", i + 1)));
        }
    }
    if numbers.is_empty() {
        return Err(Error::data(path, "no numbers"));
    }
    Ok(numbers)
}

/// Reads one whole number a line, each in `range`. Errors: those of [`read`], other numbers.
pub fn read_integers(path: &Path, range: std::ops::RangeInclusive<u8>) -> Result<Vec<u8>> {
    let number = |(i, x): (usize, &f32)| {
        let whole = *x as u8;
        if f32::from(whole) == *x && range.contains(&whole) {
            return Ok(whole);
        }
        let (low, high) = (range.start(), range.end());
        Err(Error::data(path, format!("line {}: {x}, expected a whole number from {low} to {high}", i + 1)))
    };
    read(path, 1)?.iter().enumerate().map(number).collect()
}
