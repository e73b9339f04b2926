//! Reviews with stars: one JSON object a line with `stars` (1 to 5) and `text`, as in the Yelp academic data set.
//! Gzip is inflated on the fly.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};

/// No line is longer.
const LONGEST: u64 = 1 << 20;

/// A review; other fields are ignored.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Review {
    /// 1 to 5.
    pub stars: f64,
    /// What it says.
    pub text: String,
}

impl Review {
    /// `stars - 1`, if that is a class.
    pub fn class(&self) -> Option<u8> {
        [1.0, 2.0, 3.0, 4.0, 5.0].iter().position(|s| *s == self.stars).map(|i| i as u8)
    }

    /// The words of the text: runs of letters, digits and apostrophes, in lower case.
    pub fn words(&self) -> impl Iterator<Item = String> {
        let word = |c: char| !(c.is_alphanumeric() || c == '\'');
        self.text.split(word).filter(|w| !w.is_empty()).map(str::to_lowercase)
    }
}

/// Hands the first `most` reviews of a file to `each`, in order, one line in memory at a time. Gives how many there
/// were. Errors: a line that is too long, no UTF-8, or no review with 1 to 5 whole stars; those of `each`.
pub fn for_each(path: &Path, most: usize, mut each: impl FnMut(Review, u8) -> Result<()>) -> Result<usize> {
    let (reader, _) = super::open(path)?;
    let mut reader = BufReader::new(reader);
    let (mut line, mut count, mut number) = (String::new(), 0, 0usize);
    while count < most {
        line.clear();
        number += 1;
        let damaged = |reason: String| Error::data(path, format!("line {number}: {reason}"));
        match reader.by_ref().take(LONGEST + 1).read_line(&mut line) {
            Ok(0) => break,
            Ok(n) if n as u64 > LONGEST => return Err(damaged(format!("more than {LONGEST} bytes"))),
            Ok(_) => {}
            Err(e) if super::damaged(&e) => return Err(damaged(format!("damaged or not text: {e}"))),
            Err(e) => return Err(Error::io(path, "read", e)),
        }
        if line.trim().is_empty() {
            continue;
        }
        let review: Review = serde_json::from_str(&line).map_err(|e| damaged(e.to_string()))?;
        let class =
            review.class().ok_or_else(|| damaged(format!("{} stars, expected 1 to 5", review.stars)))?;
        each(review, class)?;
        count += 1;
    }
    Ok(count)
}
