//! Endurance: what takes minutes and shows in figures. `tests/endure` runs it; `cargo test` does not.
#![allow(unreachable_pub, reason = "a test crate has no public face")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that prints figures and ends with the first failed expectation"
)]
#![allow(clippy::too_many_lines, reason = "a scene reads from top to bottom")]

mod client;
mod figures;
mod mixed;
mod overload;
mod signals;
mod slow;
mod upstream;

use std::process::ExitCode;

use figures::Figures;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|text| !text.starts_with("--")).collect();
    let size = arguments.get(1).map(|text| text.parse().expect("a number"));
    let figures: Figures = match arguments.first().map(String::as_str) {
        Some("mixed") => mixed::run(size.unwrap_or(1800)),
        Some("slow") => slow::run(usize::try_from(size.unwrap_or(10_000)).unwrap()),
        Some("overload") => overload::run(size.unwrap_or(10)),
        Some("signals") => signals::run(size.unwrap_or(30)),
        _ => {
            eprintln!(
                "usage: tests/endure mixed [SECONDS] | slow [CONNECTIONS] | overload [SECONDS] | signals [SECONDS]"
            );
            return ExitCode::from(2);
        }
    };
    figures.print();
    if figures.are_within_bounds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
