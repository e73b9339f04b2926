//! Shapes and text of an SVG file.

use std::fmt::Write as _;

/// Color of text and axes.
pub(super) const INK: &str = "#222222";
/// Color of what is said in passing.
pub(super) const MUTED: &str = "#666666";

/// Where a text stands relative to its point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Align {
    Start,
    Middle,
    End,
}

/// How a text looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    size: f64,
    bold: bool,
    color: &'static str,
    align: Align,
}

impl Style {
    pub(super) fn size(size: f64) -> Style {
        Style { size, bold: false, color: INK, align: Align::Start }
    }
    pub(super) fn bold(self) -> Style {
        Style { bold: true, ..self }
    }
    pub(super) fn color(self, color: &'static str) -> Style {
        Style { color, ..self }
    }
    pub(super) fn align(self, align: Align) -> Style {
        Style { align, ..self }
    }
}

/// Width of a character, in sizes, in the widest of the usual fonts.
fn character(c: char) -> f64 {
    match c {
        'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | ' ' | '·' | '/' => 0.34,
        't' | 'f' | 'r' | '(' | ')' | '[' | ']' | '-' => 0.42,
        'm' | 'w' | 'M' | 'W' | '%' | '…' => 0.98,
        'A'..='Z' | '×' | '→' | '←' => 0.80,
        _ => 0.63,
    }
}

/// Pixels a text takes, rather more than less.
pub(super) fn measure(text: &str, size: f64) -> f64 {
    text.chars().map(character).sum::<f64>() * size
}

/// As much of a text as fits; nothing if that is next to nothing.
pub(super) fn clip(text: &str, width: f64, size: f64) -> String {
    if measure(text, size) <= width {
        return text.into();
    }
    let mut left = width - measure("…", size);
    let fits = |c: &char| {
        left -= character(*c) * size;
        left >= 0.0
    };
    let head: String = text.chars().take_while(fits).collect();
    let head = head.trim_end_matches([' ', ',', '×', '·']);
    if head.chars().count() < 3 { String::new() } else { format!("{head}…") }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            // Not allowed in XML, not even escaped.
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// An SVG file in the making.
pub(super) struct Canvas {
    width: f64,
    body: String,
}

impl Canvas {
    pub(super) fn new(width: f64) -> Canvas {
        Canvas { width, body: String::new() }
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.body, "{element}");
    }

    pub(super) fn rect(&mut self, x: f64, y: f64, w: f64, h: f64, fill: &str) {
        self.push(format_args!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{w:.1}" height="{h:.1}" fill="{fill}"/>"#
        ));
    }

    pub(super) fn outline(&mut self, x: f64, y: f64, w: f64, h: f64, color: &str) {
        self.push(format_args!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{w:.1}" height="{h:.1}" fill="none" stroke="{color}" stroke-width="0.8"/>"#
        ));
    }

    pub(super) fn line(&mut self, a: (f64, f64), b: (f64, f64), color: &str, width: f64) {
        let ((x, y), (u, v)) = (a, b);
        self.push(format_args!(
            r#"<line x1="{x:.1}" y1="{y:.1}" x2="{u:.1}" y2="{v:.1}" stroke="{color}" stroke-width="{width}"/>"#
        ));
    }

    pub(super) fn dashed(&mut self, a: (f64, f64), b: (f64, f64), color: &str) {
        let ((x, y), (u, v)) = (a, b);
        self.push(format_args!(
            r#"<line x1="{x:.1}" y1="{y:.1}" x2="{u:.1}" y2="{v:.1}" stroke="{color}" stroke-dasharray="6 4"/>"#
        ));
    }

    pub(super) fn dot(&mut self, x: f64, y: f64, radius: f64, fill: &str) {
        self.push(format_args!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="{radius}" fill="{fill}"/>"#));
    }

    pub(super) fn fill_path(&mut self, path: &str, fill: &str) {
        if !path.is_empty() {
            self.push(format_args!(r#"<path d="{path}" fill="{fill}"/>"#));
        }
    }

    pub(super) fn stroke_path(&mut self, path: &str, color: &str, width: f64) {
        if !path.is_empty() {
            self.push(format_args!(
                r#"<path d="{path}" fill="none" stroke="{color}" stroke-width="{width}" stroke-linecap="round"/>"#
            ));
        }
    }

    pub(super) fn text(&mut self, x: f64, y: f64, text: &str, style: Style) {
        self.write(x, y, text, style, "");
    }

    /// Text on a white rim, to be read over lines.
    pub(super) fn halo(&mut self, x: f64, y: f64, text: &str, style: Style) {
        let rim = r##" stroke="#ffffff" stroke-width="4" stroke-linejoin="round""##;
        self.write(x, y, text, style, rim);
        self.write(x, y, text, style, "");
    }

    fn write(&mut self, x: f64, y: f64, text: &str, style: Style, more: &str) {
        if text.is_empty() {
            return;
        }
        let Style { size, bold, color, align } = style;
        let weight = if bold { r#" font-weight="bold""# } else { "" };
        let anchor = match align {
            Align::Start => "",
            Align::Middle => r#" text-anchor="middle""#,
            Align::End => r#" text-anchor="end""#,
        };
        let text = escape(text);
        self.push(format_args!(
            r#"<text x="{x:.1}" y="{y:.1}" font-size="{size}" fill="{color}"{weight}{anchor}{more}>{text}</text>"#
        ));
    }

    pub(super) fn finish(self, height: f64) -> String {
        let (w, body) = (self.width, self.body);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {w:.0} {height:.0}\" font-family=\"sans-serif\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_clipped() {
        assert_eq!(escape("a<b & \"c\"'\u{1}"), "a&lt;b &amp; &quot;c&quot;&apos;\u{fffd}");
        assert_eq!(clip("abc", 100.0, 10.0), "abc");
        assert_eq!(clip("abcd, efghij", 45.0, 10.0), "abcd…");
        assert_eq!(clip("abcdefghij", 20.0, 10.0), "");
    }
}
