//! Learning curves as an SVG picture.
//!
//! Written by hand rather than with a plotting library: it is little code, coordinates stay fractional (so that
//! curves are smooth at any magnification), and no font has to be found to place a label.

use std::fmt::Write;
use std::path::Path;

use super::atomic::write_atomic;
use super::error::Result;

/// One curve.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// `(x, y)` in the order of drawing. A value that is not finite interrupts the curve. A curve of more than
    /// 600 points is drawn faintly, and its moving mean over it; the legend says over how many points. (On a
    /// logarithmic axis that is the geometric mean.)
    pub points: Vec<(f64, f64)>,
}

/// A picture of several curves over common axes, readable on light and dark pages alike.
///
/// ```
/// use retrograd::run::{Chart, Series};
/// let chart = Chart {
///     title: "adding, T = 100".into(),
///     x_label: "step".into(),
///     y_label: "mean squared error".into(),
///     log_x: false,
///     log_y: true,
///     series: vec![Series { name: "train".into(), points: vec![(0.0, 0.4), (10.0, 0.1), (20.0, 0.02)] }],
///     baseline: Some(("constant prediction".into(), 0.167)),
/// };
/// assert!(chart.to_svg().starts_with("<svg"));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chart {
    /// Above the picture.
    pub title: String,
    /// Below the horizontal axis.
    pub x_label: String,
    /// Beside the vertical axis.
    pub y_label: String,
    /// Logarithmic horizontal axis.
    pub log_x: bool,
    /// Logarithmic vertical axis; values that are not positive are then left out.
    pub log_y: bool,
    /// The curves, in the order of the legend.
    pub series: Vec<Series>,
    /// A horizontal dashed line and its name.
    pub baseline: Option<(String, f64)>,
}

/// Curves with more points than this are drawn as their moving mean.
const FEW: usize = 600;

impl Series {
    /// Number of points, an odd one, that the moving mean is over.
    fn window(&self) -> Option<usize> {
        (self.points.len() > FEW).then(|| self.points.len() / 120 * 2 + 1)
    }
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = WIDTH - 26.0;
const BOTTOM: f64 = HEIGHT - 58.0;
const LEGEND_ROW: f64 = 20.0;
/// Colors that people with any color vision tell apart (Okabe and Ito 2008, without yellow and black).
const COLORS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"];
/// Curves beyond the number of colors are dashed.
const DASHES: [&str; 3] = ["", " stroke-dasharray=\"8 4\"", " stroke-dasharray=\"2 3\""];

impl Chart {
    /// Writes the picture to `path`, atomically.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        write_atomic(path, self.to_svg().as_bytes())
    }

    /// The picture. Anything can be drawn: no series, one point, values that are not finite.
    pub fn to_svg(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        self.draw(&mut out).ok();
        out
    }

    fn draw(&self, out: &mut String) -> std::fmt::Result {
        self.draw_at(out, 0.0, 0.0)
    }

    fn draw_at(&self, out: &mut String, left: f64, above: f64) -> std::fmt::Result {
        let usable = |y: f64| y.is_finite() && (!self.log_y || y > 0.0);
        let along = |x: f64| x.is_finite() && (!self.log_x || x > 0.0);
        let points = || self.series.iter().flat_map(|s| &s.points).filter(|p| along(p.0) && usable(p.1));
        let baseline = self.baseline.as_ref().filter(|b| usable(b.1));
        let empty = points().next().is_none();
        let xs = points().map(|p| p.0);
        let x = if self.log_x { Axis::log(xs, LEFT, RIGHT) } else { Axis::linear(xs, LEFT, RIGHT, 0.0) };

        let legend = self.legend();
        let top = 52.0 + LEGEND_ROW * legend.last().map_or(0.0, |e| e.row + 1.0);
        let ys = points().map(|p| p.1).chain(baseline.map(|b| b.1));
        let y = if self.log_y { Axis::log(ys, BOTTOM, top) } else { Axis::linear(ys, BOTTOM, top, 0.04) };

        writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" x=\"{left}\" y=\"{above}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" font-family=\"system-ui, 'Segoe UI', 'Helvetica Neue', Arial, \
             sans-serif\" font-size=\"12\" fill=\"#3c4048\">"
        )?;
        writeln!(out, "<title>{}</title>", escape(&self.title))?;
        writeln!(out, "<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"6\" fill=\"#ffffff\"/>")?;
        writeln!(
            out,
            "<text x=\"{LEFT}\" y=\"30\" font-size=\"16\" font-weight=\"600\" fill=\"#16181d\">{}</text>",
            escape(&self.title)
        )?;
        for entry in &legend {
            entry.draw(out)?;
        }
        self.draw_axes(out, &x, &y, top, empty)?;
        if let Some((_, value)) = baseline {
            let at = y.at(*value);
            writeln!(out, "<path d=\"M{LEFT} {at:.1}H{RIGHT}\" fill=\"none\" {BASELINE}/>")?;
        }
        for (i, series) in self.series.iter().enumerate() {
            let style = line_style(i);
            for run in runs(series, usable, &x, &y) {
                if let Some(window) = series.window() {
                    let faint = format!("stroke=\"{}\" stroke-width=\"1\" opacity=\"0.3\"", color(i));
                    draw_run(out, &thin(&run), &faint, color(i))?;
                    draw_run(out, &thin(&moving_mean(&run, window)), &style, color(i))?;
                } else {
                    draw_run(out, &run, &style, color(i))?;
                }
            }
        }
        if empty {
            let (cx, cy) = ((LEFT + RIGHT) / 2.0, top + 48.0);
            writeln!(
                out,
                "<text x=\"{cx:.1}\" y=\"{cy:.1}\" text-anchor=\"middle\" font-size=\"14\">no data</text>"
            )?;
        }
        out.push_str("</svg>\n");
        Ok(())
    }

    fn draw_axes(&self, out: &mut String, x: &Axis, y: &Axis, top: f64, empty: bool) -> std::fmt::Result {
        out.push_str("<g stroke=\"#e3e6ea\" stroke-width=\"1\">\n");
        if !empty || self.baseline.is_some() {
            for (at, _) in &y.ticks {
                writeln!(out, "<path d=\"M{LEFT} {at:.1}H{RIGHT}\"/>")?;
            }
        }
        out.push_str("</g>\n<g stroke=\"#9aa1ab\" stroke-width=\"1\">\n");
        writeln!(out, "<path d=\"M{LEFT} {BOTTOM}H{RIGHT}\"/>")?;
        if !empty {
            for (at, _) in &x.ticks {
                writeln!(out, "<path d=\"M{at:.1} {BOTTOM}v5\"/>")?;
            }
        }
        out.push_str("</g>\n");
        if !empty {
            for (at, label) in &x.ticks {
                let below = BOTTOM + 19.0;
                writeln!(out, "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{label}</text>")?;
            }
        }
        if !empty || self.baseline.is_some() {
            for (at, label) in &y.ticks {
                let (left, down) = (LEFT - 9.0, at + 4.0);
                writeln!(out, "<text x=\"{left}\" y=\"{down:.1}\" text-anchor=\"end\">{label}</text>")?;
            }
        }
        let (middle, below) = ((LEFT + RIGHT) / 2.0, HEIGHT - 16.0);
        let label = escape(&self.x_label);
        writeln!(out, "<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">{label}</text>")?;
        let middle = (top + BOTTOM) / 2.0;
        let label = escape(&self.y_label);
        writeln!(
            out,
            "<text transform=\"translate(20 {middle:.1}) rotate(-90)\" text-anchor=\"middle\">{label}</text>"
        )
    }

    /// Entries placed left to right in as many rows as they need.
    fn legend(&self) -> Vec<Entry> {
        let named = |s: &Series| match s.window() {
            Some(window) => format!("{} (mean of {window})", s.name),
            None => s.name.clone(),
        };
        let series = self.series.iter().enumerate().map(|(i, s)| (named(s), line_style(i)));
        let baseline = self.baseline.iter().map(|(name, _)| (name.clone(), BASELINE.to_owned()));
        let (mut left, mut row) = (LEFT, 0.0);
        let mut entries = Vec::new();
        for (name, style) in series.chain(baseline) {
            // Widths of letters are not known here; this is generous for a sans serif of 12.
            let width = 46.0 + 6.8 * name.chars().count() as f64;
            if left > LEFT && left + width > RIGHT {
                (left, row) = (LEFT, row + 1.0);
            }
            entries.push(Entry { name, style, left, row });
            left += width;
        }
        entries
    }
}

/// Several pictures in one, `columns` beside each other.
pub fn panels(charts: &[Chart], columns: usize) -> String {
    let columns = columns.clamp(1, charts.len().max(1));
    let (width, height) = (WIDTH * columns as f64, HEIGHT * charts.len().div_ceil(columns).max(1) as f64);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\">\n"
    );
    for (i, chart) in charts.iter().enumerate() {
        // Writing to a string cannot fail.
        chart.draw_at(&mut out, WIDTH * (i % columns) as f64, HEIGHT * (i / columns) as f64).ok();
    }
    out + "</svg>\n"
}

const BASELINE: &str = "stroke=\"#5b616b\" stroke-width=\"1.5\" stroke-dasharray=\"6 3\"";

fn color(i: usize) -> &'static str {
    COLORS[i % COLORS.len()]
}

fn line_style(i: usize) -> String {
    let dash = DASHES[i / COLORS.len() % DASHES.len()];
    format!("stroke=\"{}\" stroke-width=\"2\"{dash}", color(i))
}

struct Entry {
    name: String,
    style: String,
    left: f64,
    row: f64,
}

impl Entry {
    fn draw(&self, out: &mut String) -> std::fmt::Result {
        let (left, y) = (self.left, 52.0 + LEGEND_ROW * self.row);
        writeln!(out, "<path d=\"M{left} {y}h24\" fill=\"none\" {}/>", self.style)?;
        writeln!(out, "<text x=\"{}\" y=\"{}\">{}</text>", left + 30.0, y + 4.0, escape(&self.name))
    }
}

/// A scale from values to places, and its ticks as (place, label).
struct Axis {
    log: bool,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    ticks: Vec<(f64, String)>,
}

fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |e, v| Some(e.map_or((v, v), |(low, high): (f64, f64)| (low.min(v), high.max(v)))))
}

impl Axis {
    /// An axis over `values` with `margin` (a part of the range) added at both ends.
    fn linear(values: impl Iterator<Item = f64>, from: f64, to: f64, margin: f64) -> Axis {
        let (low, high) = extent(values).unwrap_or((0.0, 1.0));
        // Halves keep the range of the largest numbers finite. A range of nothing becomes one around the value.
        let half = high / 2.0 - low / 2.0;
        let least = low.abs().max(high.abs()).max(f64::MIN_POSITIVE) * 1e-9;
        let half = if half > least { half * (1.0 + 2.0 * margin) } else { (low.abs() / 20.0).max(0.5) };
        let middle = low / 2.0 + high / 2.0;
        let (low, high) = ((middle - half).max(-f64::MAX), (middle + half).min(f64::MAX));
        let mut axis = Axis { log: false, low, high, from, to, ticks: Vec::new() };
        let rough = half / 3.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= rough);
        if let Some(step) = step.filter(|s| s.is_finite() && *s > 0.0) {
            let first = (low / step - 1e-9).ceil();
            for i in 0..12 {
                let value = (first + f64::from(i)) * step;
                if value <= high + step * 1e-9 {
                    axis.ticks.push((axis.at(value), label(value, step)));
                }
            }
        }
        axis
    }

    /// A logarithmic axis over positive `values`.
    fn log(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Axis {
        let (low, high) = extent(values).unwrap_or((0.1, 1.0));
        let (low, high) = (low.log10(), high.log10());
        let margin = ((high - low) * 0.04).max(0.02);
        let mut axis =
            Axis { log: true, low: low - margin, high: high + margin, from, to, ticks: Vec::new() };
        let decades = axis.high - axis.low;
        // Fewer marks per decade for more decades; decades are skipped when there are very many.
        let marks: &[f64] = match decades {
            d if d < 0.7 => &[1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0],
            d if d < 2.5 => &[1.0, 2.0, 5.0],
            _ => &[1.0],
        };
        let stride = (decades / 8.0).ceil().max(1.0) as i32;
        for decade in axis.low.floor() as i32..=axis.high.ceil() as i32 {
            for mark in marks.iter().filter(|_| decade % stride == 0) {
                let place = f64::from(decade) + mark.log10();
                if (axis.low..=axis.high).contains(&place) {
                    let value = format!("{mark}e{decade}").parse::<f64>().unwrap_or_default();
                    axis.ticks.push((axis.at(value), label(value, value / 10.0)));
                }
            }
        }
        axis
    }

    fn at(&self, value: f64) -> f64 {
        let value = if self.log { value.log10() } else { value };
        // Halved for the same reason as above.
        let part = (value / 2.0 - self.low / 2.0) / (self.high / 2.0 - self.low / 2.0);
        self.from + (self.to - self.from) * part
    }
}

/// `value` with the digits that a multiple of `step` needs.
fn label(value: f64, step: f64) -> String {
    let size = value.abs();
    if size < step * 1e-6 {
        return "0".into();
    }
    let trim = |text: String| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    if !(1e-4..1e12).contains(&size) {
        let text = format!("{value:.3e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        return format!("{}e{power}", trim(digits.into()));
    }
    let (scale, unit) = match size {
        s if s >= 1e9 => (1e9, "G"),
        s if s >= 1e6 => (1e6, "M"),
        s if s >= 1e4 => (1e3, "k"),
        _ => (1.0, ""),
    };
    let digits = (2.0 - (step / scale).log10().floor()).clamp(0.0, 12.0) as usize;
    format!("{}{unit}", trim(format!("{:.digits$}", value / scale))).replace('-', "−")
}

/// The uninterrupted parts of a curve as places in the picture.
fn runs(series: &Series, usable: impl Fn(f64) -> bool, x: &Axis, y: &Axis) -> Vec<Vec<(f64, f64)>> {
    let mut runs = vec![Vec::new()];
    for &(px, py) in &series.points {
        if px.is_finite() && usable(py) {
            let point = (x.at(px), y.at(py));
            match runs.last_mut() {
                Some(run) => run.push(point),
                None => runs.push(vec![point]),
            }
        } else if runs.last().is_some_and(|r| !r.is_empty()) {
            runs.push(Vec::new());
        }
    }
    runs.retain(|r| !r.is_empty());
    runs
}

/// Mean of the `window` heights around each point; of fewer near the ends, and none where too few are left.
fn moving_mean(run: &[(f64, f64)], window: usize) -> Vec<(f64, f64)> {
    let mut sums = vec![0.0];
    for (_, y) in run {
        sums.push(sums[sums.len() - 1] + y);
    }
    let least = (window / 6).min(run.len().saturating_sub(1) / 2);
    let mean = |(i, &(x, _)): (usize, &(f64, f64))| {
        let reach = (window / 2).min(i).min(run.len() - 1 - i);
        let (from, to) = (i - reach, i + reach + 1);
        (reach >= least).then(|| (x, (sums[to] - sums[from]) / (to - from) as f64))
    };
    run.iter().enumerate().filter_map(mean).collect()
}

/// Of all points that fall into half a pixel, the first, lowest, highest and last: what can be seen, and no more.
fn thin(run: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut out = Vec::new();
    for column in run.chunk_by(|a, b| (a.0 * 2.0).floor() == (b.0 * 2.0).floor()) {
        let by_height = |a: &usize, b: &usize| column[*a].1.total_cmp(&column[*b].1);
        let mut keep = [
            Some(0),
            (0..column.len()).min_by(by_height),
            (0..column.len()).max_by(by_height),
            Some(column.len() - 1),
        ];
        keep.sort();
        for (i, &at) in keep.iter().enumerate() {
            if let Some(at) = at
                && (i == 0 || keep[i - 1] != Some(at))
            {
                out.push(column[at]);
            }
        }
    }
    out
}

fn draw_run(out: &mut String, run: &[(f64, f64)], style: &str, color: &str) -> std::fmt::Result {
    if let [(x, y)] = run {
        return writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{color}\"/>");
    }
    out.push_str("<polyline points=\"");
    for (x, y) in run {
        write!(out, "{x:.1},{y:.1} ")?;
    }
    out.truncate(out.trim_end().len());
    writeln!(out, "\" fill=\"none\" {style} stroke-linejoin=\"round\" stroke-linecap=\"round\"/>")
}

/// Text as XML: markup escaped, characters that XML does not allow replaced.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\r' | '\t' => out.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chart(log_y: bool, points: Vec<(f64, f64)>) -> Chart {
        let series = vec![Series { name: "a".into(), points }];
        Chart { title: "t".into(), log_y, series, ..Chart::default() }
    }

    /// All numbers of the drawn curves.
    fn places(svg: &str) -> Vec<f64> {
        let document = roxmltree::Document::parse(svg).unwrap();
        let lines = document.descendants().filter_map(|n| n.attribute("points")).flat_map(|p| {
            p.split([' ', ',']).filter(|t| !t.is_empty()).map(|t| t.parse().unwrap()).collect::<Vec<f64>>()
        });
        let dots = document
            .descendants()
            .filter(|n| n.has_tag_name("circle"))
            .flat_map(|n| ["cx", "cy"].map(|a| n.attribute(a).unwrap().parse::<f64>().unwrap()));
        lines.chain(dots).collect()
    }

    proptest! {
        #[test]
        fn any_numbers_and_texts_give_a_picture(
            points in prop::collection::vec((any::<f64>(), any::<f64>()), 0..40),
            baseline in any::<f64>(), log_y in any::<bool>(), text in any::<String>(),
        ) {
            let series = vec![Series { name: text.clone(), points }];
            let chart = Chart {
                title: text.clone(), x_label: text.clone(), y_label: text.clone(),
                log_x: false, log_y, series, baseline: Some((text, baseline)),
            };
            for xy in places(&chart.to_svg()).chunks(2) {
                prop_assert!((LEFT - 0.1..=RIGHT + 0.1).contains(&xy[0]), "{xy:?}");
                prop_assert!((0.0..=BOTTOM + 0.1).contains(&xy[1]), "{xy:?}");
            }
        }
    }

    #[test]
    fn text_is_escaped() {
        let mut chart = chart(false, vec![(0.0, 1.0)]);
        chart.title = "a < b & \"c\" ]]> \u{0}\u{1b}".into();
        let svg = chart.to_svg();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let title = document.descendants().find(|n| n.has_tag_name("title")).unwrap();
        assert_eq!(title.text(), Some("a < b & \"c\" ]]> \u{fffd}\u{fffd}"));
    }

    #[test]
    fn gaps_single_points_and_nothing() {
        let nan = f64::NAN;
        let tags = |svg: &str, tag: &str| svg.matches(&format!("<{tag} ")).count();
        let gap = chart(false, vec![(0.0, 1.0), (1.0, 2.0), (2.0, nan), (3.0, 1.0), (4.0, 0.0)]).to_svg();
        assert_eq!((tags(&gap, "polyline"), tags(&gap, "circle")), (2, 0));
        let point = chart(false, vec![(nan, 1.0), (5.0, 3.0), (6.0, f64::INFINITY)]).to_svg();
        assert_eq!((tags(&point, "polyline"), tags(&point, "circle")), (0, 1));
        let positive = chart(true, vec![(0.0, 1.0), (1.0, 0.1), (2.0, 0.0), (3.0, -1.0)]).to_svg();
        assert_eq!(places(&positive).len(), 4);
        for empty in [Chart::default(), chart(false, vec![]), chart(true, vec![(1.0, -1.0)])] {
            assert!(empty.to_svg().contains(">no data</text>"));
        }
    }

    #[test]
    fn places_are_proportional() {
        let linear = chart(false, vec![(0.0, 0.0), (5.0, 5.0), (10.0, 10.0)]);
        let p = places(&linear.to_svg());
        assert_eq!((p[0], p[4]), (LEFT, RIGHT));
        assert!((p[0] + p[4] - 2.0 * p[2]).abs() < 0.2 && (p[1] + p[5] - 2.0 * p[3]).abs() < 0.2, "{p:?}");
        let log = chart(true, vec![(0.0, 1e-4), (1.0, 1e-2), (2.0, 1.0)]);
        let p = places(&log.to_svg());
        assert!((p[1] + p[5] - 2.0 * p[3]).abs() < 0.2, "{p:?}");
    }

    #[test]
    fn ticks_are_round_few_and_labelled() {
        let labels = |axis: Axis| axis.ticks.into_iter().map(|t| t.1).collect::<Vec<_>>();
        let linear = |low, high| labels(Axis::linear([low, high].into_iter(), 0.0, 1.0, 0.0));
        assert_eq!(linear(0.0, 1.0), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(linear(-1.0, 1.0), ["−1", "−0.5", "0", "0.5", "1"]);
        assert_eq!(linear(0.0, 60000.0), ["0", "10k", "20k", "30k", "40k", "50k", "60k"]);
        assert_eq!(linear(8.5, 8.6), ["8.5", "8.52", "8.54", "8.56", "8.58", "8.6"]);
        let log = |low, high| labels(Axis::log([low, high].into_iter(), 0.0, 1.0));
        assert_eq!(log(1e-3, 1.0), ["0.001", "0.01", "0.1", "1"]);
        assert_eq!(log(0.15, 0.9), ["0.2", "0.5"]);
        assert_eq!(log(1e-6, 1e-4), ["1e-6", "2e-6", "5e-6", "1e-5", "2e-5", "5e-5", "0.0001"]);
        let mut failed = Vec::new();
        for exponent in -300..300 {
            for (low, high) in [(1.0, 1.1), (1.0, 7.3), (0.02, 90.0), (-3.0, 1e-9)] {
                let scale = 10f64.powi(exponent);
                let ticks = linear(low * scale, high * scale);
                if !(3..=8).contains(&ticks.len()) || ticks.windows(2).any(|t| t[0] == t[1]) {
                    failed.push((low * scale, high * scale, ticks));
                }
            }
        }
        assert!(failed.is_empty(), "{failed:?}");
    }

    #[test]
    fn a_moving_mean_is_the_mean_and_keeps_lines() {
        let line: Vec<_> = (0..50).map(|i| (f64::from(i), 2.0 * f64::from(i))).collect();
        let mean = moving_mean(&line, 13);
        assert_eq!((mean.len(), mean[0].0), (46, 2.0));
        for (x, y) in mean {
            assert!((y - 2.0 * x).abs() < 1e-9, "{x} {y}");
        }
        assert_eq!(moving_mean(&line[..1], 13), line[..1]);
        assert_eq!(moving_mean(&line[..2], 13), line[..2]);
        let mut spike = vec![(0.0, 0.0); 9];
        spike[4].1 = 3.0;
        let mean: Vec<_> = moving_mean(&spike, 3).into_iter().map(|p| p.1).collect();
        assert_eq!(mean, [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn long_curves_are_thinned_without_losing_a_spike() {
        let mut points: Vec<_> = (0..200_000).map(|i| (f64::from(i), 1.0)).collect();
        points[123_456].1 = 50.0;
        let whole = chart(false, points);
        let svg = whole.to_svg();
        assert!(svg.len() < 100_000, "{} bytes", svg.len());
        let p = places(&svg);
        let highest = p.chunks(2).map(|c| c[1]).fold(f64::MAX, f64::min);
        let lowest = p.chunks(2).map(|c| c[1]).fold(f64::MIN, f64::max);
        assert!(lowest - highest > 250.0, "{highest} {lowest}");
    }
}
