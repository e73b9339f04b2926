//! Curves with at most a few points for each pixel, whatever the number of events.

use std::fmt::Write as _;

use crate::plan::explain::timeline::{LAYERS, Use};

/// Round numbers up to `high`, three to six of them: 1, 2 or 5 times a power of ten, or powers of two.
pub(super) fn ticks(high: f64, powers_of_two: bool) -> Vec<f64> {
    let mut step = if powers_of_two {
        (high / 4.0).log2().floor().exp2()
    } else {
        let decade = 10f64.powf((high / 4.0).log10().floor());
        let times = [5.0, 2.0, 1.0].into_iter().find(|m| m * decade <= high / 4.0);
        times.unwrap_or(1.0) * decade
    };
    step = step.max(1.0);
    (0..).map(|k| f64::from(k) * step).take_while(|&t| t <= high).take(16).collect()
}

/// Layers on top of each other, one column for each pixel; a column shows its fullest moment.
pub(super) struct Areas {
    columns: Vec<Use>,
}

impl Areas {
    pub(super) fn new(columns: usize) -> Areas {
        Areas { columns: vec![Use::default(); columns.max(1)] }
    }

    /// From `before` at `start` to `after` at `end`, in pixels.
    pub(super) fn add(&mut self, start: f64, end: f64, before: &Use, after: &Use) {
        let last = self.columns.len() - 1;
        let column = |x: f64| (x.max(0.0) as usize).min(last);
        for at in column(start)..=column(end) {
            // The fuller end of the part of the stretch that lies in this column.
            let part = |x: f64| if end > start { ((x - start) / (end - start)).clamp(0.0, 1.0) } else { 1.0 };
            for p in [part(at as f64), part(at as f64 + 1.0)] {
                let mut value = Use::default();
                for k in 0..value.len() {
                    value[k] = before[k] + (after[k] - before[k]) * p;
                }
                if value.iter().sum::<f64>() > self.columns[at].iter().sum() {
                    self.columns[at] = value;
                }
            }
        }
    }

    /// Which layers are anywhere.
    pub(super) fn used(&self) -> [bool; LAYERS.len()] {
        std::array::from_fn(|k| self.columns.iter().any(|c| c[k] > 0.0))
    }

    /// Outline of each layer; `y` places a number of bytes.
    pub(super) fn paths(&self, left: f64, y: &dyn Fn(f64) -> f64) -> Vec<String> {
        let mut below = vec![0.0; self.columns.len()];
        (0..LAYERS.len())
            .map(|k| {
                let above: Vec<f64> = self.columns.iter().zip(&below).map(|(c, b)| b + c[k]).collect();
                let path = if above == below { String::new() } else { outline(&below, &above, left, y) };
                below = above;
                path
            })
            .collect()
    }
}

fn outline(below: &[f64], above: &[f64], left: f64, y: &dyn Fn(f64) -> f64) -> String {
    let n = above.len();
    let mut path = String::new();
    // Each column from its left edge to its right one; runs of equal columns are one line.
    let mut edge = |values: &[f64], columns: &mut dyn Iterator<Item = usize>, back: usize| {
        let mut last = f64::NAN;
        for i in columns {
            if values[i] == last {
                continue;
            }
            let x = left + (i + back) as f64;
            let op = if path.is_empty() { 'M' } else { 'L' };
            if !last.is_nan() {
                let _ = write!(path, "L{x:.0} {:.1}", y(last));
            }
            let _ = write!(path, "{op}{x:.0} {:.1}", y(values[i]));
            last = values[i];
        }
        let end = if back == 0 { n } else { 0 };
        let _ = write!(path, "L{:.0} {:.1}", left + end as f64, y(last));
    };
    edge(above, &mut (0..n), 0);
    edge(below, &mut (0..n).rev(), 1);
    path.push('Z');
    path
}

/// Lines from left to right; those that lie in one pixel's column become one upright line.
#[derive(Default)]
pub(super) struct Strokes {
    path: String,
    end: Option<(f64, f64)>,
    column: Option<(i64, f64, f64)>,
}

impl Strokes {
    pub(super) fn line(&mut self, a: (f64, f64), b: (f64, f64)) {
        if b.0 - a.0 < 0.7 {
            let (low, high) = (a.1.min(b.1), a.1.max(b.1));
            let at = a.0.floor() as i64;
            match &mut self.column {
                Some((c, l, h)) if *c == at => (*l, *h) = (l.min(low), h.max(high)),
                _ => {
                    self.flush();
                    self.column = Some((at, low, high));
                }
            }
            return;
        }
        self.flush();
        if self.end != Some(a) {
            let _ = write!(self.path, "M{:.1} {:.1}", a.0, a.1);
        }
        let _ = write!(self.path, "L{:.1} {:.1}", b.0, b.1);
        self.end = Some(b);
    }

    fn flush(&mut self) {
        if let Some((at, low, high)) = self.column.take() {
            let _ = write!(self.path, "M{:.1} {low:.1}V{high:.1}", at as f64 + 0.5);
            self.end = None;
        }
    }

    pub(super) fn finish(mut self) -> String {
        self.flush();
        self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(1000.0, false), [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]);
        assert_eq!(ticks(7.0 * 1048576.0, true)[1], 1048576.0);
        assert_eq!(ticks(1.0, false), [0.0, 1.0]);
        assert!(ticks(3e15, true).len() <= 9);
    }

    #[test]
    fn a_million_lines_stay_few() {
        let mut s = Strokes::default();
        for i in 0..1_000_000 {
            let x = f64::from(i) / 1000.0;
            s.line((x, f64::from(i % 7)), (x + 0.001, f64::from(i % 5)));
        }
        assert_eq!(s.finish().matches('M').count(), 1000);
    }

    #[test]
    fn columns_show_the_fullest_moment() {
        let mut areas = Areas::new(4);
        let with = |n: f64| [n, 0.0, 0.0, 0.0, 0.0];
        areas.add(0.0, 4.0, &with(0.0), &with(8.0));
        areas.add(1.2, 1.4, &with(50.0), &with(20.0));
        let tops: Vec<f64> = areas.columns.iter().map(|c| c[0]).collect();
        assert_eq!(tops, [2.0, 50.0, 6.0, 8.0]);
        let paths = areas.paths(0.0, &|b| -b);
        assert!(paths[0].starts_with("M0 -2.0") && paths[0].ends_with('Z'), "{}", paths[0]);
        assert!(paths[1].is_empty());
    }
}
