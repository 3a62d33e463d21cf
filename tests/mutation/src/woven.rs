//! The switch of the mutants that are woven into this build.

use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

struct Switch {
    chosen: Option<usize>,
    reached: Option<std::fs::File>,
    seen: Vec<AtomicBool>,
}

static SWITCH: OnceLock<Switch> = OnceLock::new();

fn read() -> Switch {
    let chosen = std::env::var("WOVEN_CHOSEN").ok().and_then(|number| number.parse().ok());
    let reached = std::env::var_os("WOVEN_REACHED")
        .and_then(|path| std::fs::OpenOptions::new().append(true).create(true).open(path).ok());
    let length = if reached.is_some() { 65_536 } else { 0 };
    Switch { chosen, reached, seen: (0..length).map(|_| AtomicBool::new(false)).collect() }
}

/// True while the mutant of this number is chosen (`WOVEN_CHOSEN`). Writes the numbers that it is asked for to a file
/// (`WOVEN_REACHED`), each once.
pub fn on(number: usize) -> bool {
    let switch = SWITCH.get_or_init(read);
    if let (Some(mut file), Some(seen)) = (switch.reached.as_ref(), switch.seen.get(number))
        && !seen.swap(true, Ordering::Relaxed)
    {
        let _ = file.write_all(format!("{number}\n").as_bytes());
    }
    switch.chosen == Some(number)
}
