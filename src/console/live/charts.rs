//! Small line charts in SVG, rendered on the server, with a text alternative.

use std::fmt::Write as _;

use maud::{Markup, html};

/// The size of a chart in its own units; the page scales it.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 120.0;
/// The space above the highest value, so that its line is visible.
const ABOVE: f64 = 4.0;

/// The length of the line for a value without neighbours.
const STROKE: f64 = 2.0;

/// A line of a chart.
pub(super) struct ChartLine {
    pub(super) name: &'static str,
    /// The class in the style sheet.
    pub(super) class: &'static str,
    /// The values, newest last; `None` where a value is unknown.
    pub(super) values: Vec<Option<f64>>,
}

/// A chart of these lines on one scale, with a caption that gives their names and their newest and greatest values.
pub(super) fn chart(title: &str, lines: &[ChartLine], shown: impl Fn(f64) -> String) -> Markup {
    let known = || lines.iter().flat_map(|line| line.values.iter().flatten().copied());
    let top = scale(known().fold(0.0, f64::max));
    let described = |line: &ChartLine| {
        let greatest = line.values.iter().flatten().copied().reduce(f64::max);
        match (line.values.last().copied().flatten(), greatest) {
            (now, Some(greatest)) => {
                let now = now.map_or_else(|| "unknown".to_owned(), &shown);
                format!("{}: {now} now, {} at most", line.name, shown(greatest))
            }
            (_, None) => format!("{}: nothing yet", line.name),
        }
    };
    let numbers: Vec<String> = lines.iter().map(described).collect();
    let (bottom, middle) = (format!("M0 {HEIGHT}H{WIDTH}"), format!("M0 {}H{WIDTH}", height(top / 2.0, top)));
    html! {
        figure {
            figcaption {
                strong { (title) }
                @for (line, numbers) in lines.iter().zip(&numbers) { " " span.key.(line.class) { (numbers) } }
            }
            svg.chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label={ (title) ", last ten minutes. " (numbers.join("; ")) "." } {
                path.axis d=(bottom) {}
                path.axis d=(middle) {}
                @for line in lines {
                    path.line.(line.class) d=(path(&line.values, top)) {}
                }
            }
        }
    }
}

/// Rounds the greatest value up to a round number.
fn scale(greatest: f64) -> f64 {
    if !greatest.is_finite() || greatest <= 0.0 {
        return 1.0;
    }
    let unit = 10_f64.powf(greatest.log10().floor());
    [1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0]
        .map(|factor| factor * unit)
        .into_iter()
        .find(|top| *top >= greatest)
        .unwrap_or(greatest)
}

fn height(value: f64, top: f64) -> f64 {
    let share = (value / top).clamp(0.0, 1.0);
    HEIGHT - share * (HEIGHT - ABOVE)
}

/// The SVG path of a line. A value between unknown ones becomes a short stroke.
#[expect(clippy::cast_precision_loss, reason = "a number of points")]
fn path(values: &[Option<f64>], top: f64) -> String {
    let step = WIDTH / values.len().saturating_sub(1).max(1) as f64;
    let (mut path, mut draws) = (String::new(), false);
    for (place, value) in values.iter().enumerate() {
        let Some(value) = value else {
            draws = false;
            continue;
        };
        let (x, y) = (place as f64 * step, height(*value, top));
        // Writing to a string cannot fail.
        let _ = match draws {
            true => write!(path, "L{x:.1} {y:.1}"),
            false => write!(path, "M{:.1} {y:.1}H{x:.1}", (x - STROKE).max(0.0)),
        };
        draws = true;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_round_and_hold_the_greatest_value() {
        for (greatest, top) in [
            (0.0, 1.0),
            (f64::NAN, 1.0),
            (0.7, 0.75),
            (1.0, 1.0),
            (1.1, 1.5),
            (4.9, 5.0),
            (7.6, 10.0),
            (230.0, 300.0),
        ] {
            assert_eq!(scale(greatest), top, "{greatest}");
        }
        let small = scale(0.000_4);
        assert!((small - 0.000_5).abs() < 1e-9, "{small}");
    }

    #[test]
    fn a_line_is_drawn_where_values_are_known() {
        let values = [None, Some(0.0), Some(1.0), None, Some(0.5)];
        assert_eq!(path(&values, 1.0), "M148.0 120.0H150.0L300.0 4.0M598.0 62.0H600.0");
        assert_eq!(path(&[], 1.0), "");
        assert_eq!(path(&[Some(2.0)], 1.0), "M0.0 4.0H0.0");
    }

    #[test]
    fn a_chart_says_its_numbers() {
        let lines = [
            ChartLine { name: "a", class: "good", values: vec![Some(3.0), Some(1.0)] },
            ChartLine { name: "b", class: "bad", values: vec![Some(2.0), None] },
            ChartLine { name: "c", class: "bad", values: vec![None] },
        ];
        let html = chart("Rate", &lines, |value| format!("{value} per second")).into_string();
        let label = "aria-label=\"Rate, last ten minutes. a: 1 per second now, 3 per second at most; \
                     b: unknown now, 2 per second at most; c: nothing yet.\"";
        assert!(html.contains(label) && html.contains("role=\"img\""), "{html}");
        assert!(!html.contains("style="), "the policy forbids it: {html}");
    }
}
