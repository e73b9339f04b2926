//! Pictures that are no curves: points in the complex plane, and a field of numbers.

use std::fmt::Write;

use num_complex::Complex64;

/// Colors that people with any color vision tell apart, as those of [`Chart`](crate::run::Chart).
const COLORS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"];
const SIZE: f64 = 520.0;
/// A field of more cells is drawn coarser.
const CELLS: usize = 160;

fn open(out: &mut String, width: f64, height: f64, title: &str) -> std::fmt::Result {
    let title = title.replace('&', "&amp;").replace('<', "&lt;");
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" font-family=\"system-ui, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif\" \
         font-size=\"12\" fill=\"#3c4048\">"
    )?;
    writeln!(out, "<title>{title}</title>")?;
    writeln!(out, "<rect width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"#ffffff\"/>")?;
    writeln!(
        out,
        "<text x=\"24\" y=\"30\" font-size=\"15\" font-weight=\"600\" fill=\"#16181d\">{title}</text>"
    )
}

/// Points in the complex plane, several groups of them, with the unit circle if asked for.
pub(super) fn scatter(title: &str, groups: &[(String, Vec<Complex64>)], circle: bool) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    draw_scatter(&mut out, title, groups, circle).ok();
    out
}

fn draw_scatter(
    out: &mut String,
    title: &str,
    groups: &[(String, Vec<Complex64>)],
    circle: bool,
) -> std::fmt::Result {
    let legend = 20.0 * groups.len() as f64;
    let (top, height) = (50.0 + legend, SIZE + 90.0 + legend);
    open(out, SIZE + 48.0, height, title)?;
    let points = || groups.iter().flat_map(|(_, p)| p).filter(|z| z.re.is_finite() && z.im.is_finite());
    let least = if circle { 1.1 } else { 1e-3 };
    let reach = points().map(|z| z.re.abs().max(z.im.abs()) * 1.1).fold(least, f64::max);
    let (cx, cy) = (24.0 + SIZE / 2.0, top + SIZE / 2.0);
    let at = |z: &Complex64| (cx + z.re / reach * SIZE / 2.0, cy - z.im / reach * SIZE / 2.0);
    for (i, (name, _)) in groups.iter().enumerate() {
        let y = 50.0 + 20.0 * i as f64;
        let name = name.replace('&', "&amp;").replace('<', "&lt;");
        writeln!(out, "<circle cx=\"32\" cy=\"{y}\" r=\"4\" fill=\"{}\"/>", COLORS[i % COLORS.len()])?;
        writeln!(out, "<text x=\"44\" y=\"{}\">{name}</text>", y + 4.0)?;
    }
    out.push_str("<g stroke=\"#c4c9d0\" fill=\"none\">\n");
    writeln!(out, "<path d=\"M24 {cy}h{SIZE}M{cx} {top}v{SIZE}\"/>")?;
    if circle {
        writeln!(
            out,
            "<circle cx=\"{cx}\" cy=\"{cy}\" r=\"{:.1}\" stroke-dasharray=\"5 3\"/>",
            SIZE / 2.0 / reach
        )?;
    }
    out.push_str("</g>\n");
    for (i, (_, points)) in groups.iter().enumerate() {
        writeln!(out, "<g fill=\"{}\" fill-opacity=\"0.6\">", COLORS[i % COLORS.len()])?;
        for z in points.iter().filter(|z| z.re.is_finite() && z.im.is_finite()) {
            let (x, y) = at(z);
            writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>")?;
        }
        out.push_str("</g>\n");
    }
    let (right, below) = (24.0 + SIZE, top + SIZE + 20.0);
    writeln!(out, "<text x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\">{reach:.3}</text>", cy - 6.0)?;
    writeln!(out, "<text x=\"24\" y=\"{below:.1}\">real part to the right, imaginary part up</text>")?;
    out.push_str("</svg>\n");
    Ok(())
}

/// `value(column, row)` as colors: blue below 0, red above, white at 0.
pub(super) fn heat(title: &str, columns: usize, rows: usize, value: &dyn Fn(usize, usize) -> f64) -> String {
    let mut out = String::new();
    draw_heat(&mut out, title, columns, rows, value).ok();
    out
}

fn draw_heat(
    out: &mut String,
    title: &str,
    columns: usize,
    rows: usize,
    value: &dyn Fn(usize, usize) -> f64,
) -> std::fmt::Result {
    open(out, 760.0, 470.0, title)?;
    let (across, down) = (columns.clamp(1, CELLS), rows.clamp(1, CELLS));
    let (w, h) = (690.0 / across as f64, 350.0 / down as f64);
    let finite =
        (0..columns).flat_map(|t| (0..rows).map(move |c| value(t, c).abs())).filter(|x| x.is_finite());
    let most = finite.fold(0.0, f64::max);
    for i in 0..across {
        for j in 0..down {
            // Of cells that do not fit one is drawn.
            let x = value(i * columns / across, j * rows / down);
            let share = if most > 0.0 { (x / most).clamp(-1.0, 1.0) } else { 0.0 };
            let fade = (255.0 * (1.0 - share.abs())) as u8;
            let (r, g, b) = match x {
                x if !x.is_finite() => (0, 0, 0),
                x if x < 0.0 => (fade, fade, 255),
                _ => (255, fade, fade),
            };
            let (left, top) = (44.0 + w * i as f64, 50.0 + h * j as f64);
            writeln!(
                out,
                "<rect x=\"{left:.2}\" y=\"{top:.2}\" width=\"{:.2}\" height=\"{:.2}\" fill=\"#{r:02x}{g:02x}{b:02x}\"/>",
                w + 0.3,
                h + 0.3
            )?;
        }
    }
    writeln!(out, "<text x=\"389\" y=\"420\" text-anchor=\"middle\">t, 1 to {columns}</text>")?;
    writeln!(
        out,
        "<text transform=\"translate(28 225) rotate(-90)\" text-anchor=\"middle\">place, {rows}</text>"
    )?;
    writeln!(out, "<text x=\"44\" y=\"448\">blue −{most:.3}, white 0, red {most:.3}</text>")?;
    out.push_str("</svg>\n");
    Ok(())
}
