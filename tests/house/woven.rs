//! The switches that `tests/mutation` puts into sources: a program does what it did while no mutant is chosen, and what the mutant says
//! while one is.

use std::process::Command;

use crate::mutant::{Extent, Genre, Mutant, Place};
use crate::weave::weave;

const PROGRAM: &str = r#"
struct Pair { a: u8, b: u8 }
const THREE: u8 = 2 + 1;
fn value() -> u8 { 1 }
async fn later() -> u8 { 1 }
fn both(a: bool, b: bool) -> bool { a && b }
fn either(a: bool, b: bool) -> bool { a || b }
fn less(a: u8, b: u8) -> bool { a < b && !(a == b) }
fn twice(a: u8, b: u8) -> u8 { let mut sum = a; sum += b; sum * 2 }
fn matched(a: u8) -> u8 { match a { n if n > 3 => 1, 2 => 2, _ => 0 } }
fn field(a: u8) -> u8 { let pair = Pair { a, ..Pair { a: 7, b: 1 } }; pair.a + pair.b }
fn chained(a: Option<u8>) -> bool { if let Some(a) = a && a > 0 { true } else { false } }
fn main() {
    let _ = later();
    let bools = [both(true, false), both(true, true), either(false, true), less(1, 2), less(2, 2), less(3, 2), chained(Some(1))];
    println!("{} {:?} {} {} {} {}", value(), bools.map(u8::from), twice(3, 2), matched(4) * 10 + matched(2), field(2), THREE);
}
"#;

/// A mutant: what it changes (where the text with `@` has it), what comes there, and what the program says then. Nothing,
/// if no switch can choose it.
type Row = (Genre, &'static str, &'static str, &'static str);

const UNCHANGED: &str = "1 [0, 1, 1, 1, 0, 0, 1] 10 12 3 3";

const ROWS: [Row; 16] = [
    (Genre::FnValue, "fn value() -> u8 { @1", "0", "0 [0, 1, 1, 1, 0, 0, 1] 10 12 3 3"),
    (Genre::FnValue, "fn later() -> u8 { @1", "0", UNCHANGED),
    (Genre::BinaryOperator, "{ a @&& b }", "||", "1 [1, 1, 1, 1, 0, 0, 1] 10 12 3 3"),
    (Genre::BinaryOperator, "{ a @|| b }", "&&", "1 [0, 1, 0, 1, 0, 0, 1] 10 12 3 3"),
    (Genre::BinaryOperator, "{ a @< b", ">", "1 [0, 1, 1, 0, 0, 1, 1] 10 12 3 3"),
    (Genre::BinaryOperator, "{ a @< b", "==", "1 [0, 1, 1, 0, 0, 0, 1] 10 12 3 3"),
    (Genre::BinaryOperator, "b @&& !(", "||", "1 [0, 1, 1, 1, 0, 1, 1] 10 12 3 3"),
    (Genre::UnaryOperator, "&& @!(", "", "1 [0, 1, 1, 0, 0, 0, 1] 10 12 3 3"),
    (Genre::BinaryOperator, "sum @+= b", "-=", "1 [0, 1, 1, 1, 0, 0, 1] 2 12 3 3"),
    (Genre::BinaryOperator, "sum @* 2", "+", "1 [0, 1, 1, 1, 0, 0, 1] 7 12 3 3"),
    (Genre::MatchArmGuard, "n if @n > 3", "true", "1 [0, 1, 1, 1, 0, 0, 1] 10 11 3 3"),
    (Genre::MatchArmGuard, "n if @n > 3", "false", "1 [0, 1, 1, 1, 0, 0, 1] 10 2 3 3"),
    (Genre::MatchArm, "=> 1, @2 => 2", "", "1 [0, 1, 1, 1, 0, 0, 1] 10 10 3 3"),
    (Genre::StructField, "Pair { @a, ..", "", "1 [0, 1, 1, 1, 0, 0, 1] 10 12 8 3"),
    (Genre::BinaryOperator, "u8 = 2 @+ 1", "-", ""),
    (Genre::BinaryOperator, "= a @&& a > 0", "||", ""),
];

fn mutant((genre, place, replacement, _): &Row) -> Mutant {
    let before = place.find('@').unwrap();
    let at = PROGRAM.find(&place.replace('@', "")).unwrap() + before;
    let line = PROGRAM[..at].matches('\n').count() + 1;
    let column = at - PROGRAM[..at].rfind('\n').unwrap();
    let start = Place { line, column };
    Mutant {
        name: (*place).to_owned(),
        file: "program.rs".to_owned(),
        genre: *genre,
        replacement: (*replacement).to_owned(),
        span: Extent { start },
    }
}

#[test]
fn each_mutant_runs_while_it_is_chosen_and_none_while_none_is() {
    let mutants: Vec<_> = ROWS.iter().map(mutant).collect();
    let numbered: Vec<_> = mutants.iter().enumerate().collect();
    let woven = weave(PROGRAM, &numbered).unwrap();
    let without_switch: Vec<_> = (0..ROWS.len()).filter(|&number| ROWS[number].3.is_empty()).collect();
    assert_eq!(woven.left_out, without_switch);

    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("program.rs");
    let switch = include_str!("../mutation/src/woven.rs");
    std::fs::write(&source, format!("{}\nmod woven {{\n{switch}\n}}\n", woven.text)).unwrap();
    let compiled = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition", "2024", "--cap-lints", "allow"])
        .arg(&source)
        .arg("-o")
        .arg(folder.path().join("program"))
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let says = |chosen: &str| {
        let mut program = Command::new(folder.path().join("program"));
        let output =
            program.env("WOVEN_CHOSEN", chosen).env("WOVEN_REACHED", folder.path().join("reached")).output();
        String::from_utf8(output.unwrap().stdout).unwrap().trim_end().to_owned()
    };
    assert_eq!(says(""), UNCHANGED);
    for (number, (_, place, replacement, expected)) in
        ROWS.iter().enumerate().filter(|(_, row)| !row.3.is_empty())
    {
        assert_eq!(says(&number.to_string()), *expected, "{place} becomes {replacement:?}");
    }

    let reached = std::fs::read_to_string(folder.path().join("reached")).unwrap();
    let is_reached = |number: usize| reached.lines().any(|line| line == number.to_string());
    assert!(is_reached(0) && !is_reached(1), "the future of `later` is dropped before it runs");
}
