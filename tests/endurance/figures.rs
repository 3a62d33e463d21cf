//! The table that a command prints, and the bounds that its figures must keep.

use std::time::Duration;

/// Figures, each with its bound if it has one.
#[derive(Default)]
pub struct Figures(Vec<Figure>);

struct Figure {
    name: String,
    value: String,
    bound: String,
    is_kept: bool,
}

impl Figures {
    /// A figure without a bound.
    pub fn note(&mut self, name: &str, value: impl ToString) {
        self.add(name, value, "", true);
    }

    /// A figure whose bound is `bound` in words.
    pub fn add(&mut self, name: &str, value: impl ToString, bound: &str, is_kept: bool) {
        let (name, value, bound) = (name.to_owned(), value.to_string(), bound.to_owned());
        println!("{name}: {value}{}", if is_kept { "" } else { "  BROKEN" });
        self.0.push(Figure { name, value, bound, is_kept });
    }

    /// Prints all of them.
    pub fn print(&self) {
        println!("\n{:<44} {:>16}  {:<30}", "figure", "value", "bound");
        for Figure { name, value, bound, is_kept } in &self.0 {
            let verdict = match (bound.is_empty(), is_kept) {
                (true, _) => "",
                (false, true) => "kept",
                (false, false) => "BROKEN",
            };
            println!("{name:<44} {value:>16}  {bound:<30} {verdict}");
        }
    }

    /// Whether every bound is kept.
    pub fn are_within_bounds(&self) -> bool {
        self.0.iter().all(|figure| figure.is_kept)
    }
}

/// The 99th percentile.
pub fn p99(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    let place = (times.len() * 99).div_ceil(100).saturating_sub(1);
    times.get(place).copied().unwrap_or_default()
}

/// Milliseconds with two digits.
pub fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

/// The slope of the line through points, by least squares.
pub fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
    let (x, y) = (x / count, y / count);
    let covariance: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let variance: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    if variance > 0.0 { covariance / variance } else { 0.0 }
}
