//! The house rules that a compiler does not check: `lib.rs` is the map, and every file keeps to it.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a broken rule fails the test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Names that several types may have. Each room has its `Settings`, which code names by their room: `gate::Settings`.
const SHARED_NAMES: [&str; 1] = ["Settings"];
/// Lines of a source file without its tests.
const LONGEST_FILE: usize = 400;

#[test]
fn no_module_imports_from_one_listed_above_it() {
    let order = map();
    let found: Vec<String> = sources()
        .iter()
        .filter_map(|file| Some((file, *order.get(&file.module())?)))
        .flat_map(|(file, rank)| {
            let order = &order;
            file.imports().into_iter().filter_map(move |(line, name)| {
                let imported =
                    order.get(&name).unwrap_or_else(|| panic!("{}:{line}: crate::{name}?", file.name()));
                (*imported < rank)
                    .then(|| format!("{}:{line}: {} imports crate::{name}", file.name(), file.module()))
            })
        })
        .collect();
    assert!(found.is_empty(), "imports that point up the map in lib.rs:\n{}", found.join("\n"));
}

#[test]
fn every_module_is_on_the_map() {
    let order = map();
    let missing: Vec<String> = sources()
        .iter()
        .map(Source::module)
        .filter(|m| m != "main" && m != "lib" && !order.contains_key(m))
        .collect();
    assert!(missing.is_empty(), "not listed in lib.rs: {missing:?}");
}

#[test]
fn every_file_opens_with_what_it_does() {
    let found: Vec<String> =
        sources().iter().filter(|file| !file.text.starts_with("//! ")).map(Source::name).collect();
    assert!(found.is_empty(), "without a `//!` header: {found:?}");
}

#[test]
fn no_file_is_too_long() {
    let found: Vec<String> = sources()
        .iter()
        .filter(|file| !file.is_test())
        .map(|file| (file.name(), file.without_tests().lines().count()))
        .filter(|(_, lines)| *lines > LONGEST_FILE)
        .map(|(name, lines)| format!("{name}: {lines}"))
        .collect();
    assert!(found.is_empty(), "longer than {LONGEST_FILE} lines without their tests: {found:?}");
}

#[test]
fn only_time_rs_reads_the_wall_clock() {
    let found: Vec<String> = sources()
        .iter()
        .filter(|file| file.name() != "time.rs")
        .filter(|file| {
            ["SystemTime::now", "OffsetDateTime::now", "UtcDateTime::now"]
                .iter()
                .any(|c| file.text.contains(c))
        })
        .map(Source::name)
        .collect();
    assert!(found.is_empty(), "these read the wall clock themselves: {found:?}");
}

#[test]
fn no_two_types_share_a_bare_name() {
    let found = shared_names(&sources());
    assert!(
        found.is_empty(),
        "types of the same name; say in the name which one it is:\n{}",
        found.join("\n")
    );
}

#[test]
fn the_rule_of_names_sees_what_it_looks_for() {
    let file = |path: &str, text: &str| Source { path: PathBuf::from(path), text: text.to_owned() };
    let files = [
        file(
            "gate/a.rs",
            "pub(super) struct Wire<S>(S);\npub struct Settings;\nimpl T for Wire { \n    type Data = ();\n}\n",
        ),
        file(
            "forward/b.rs",
            "enum Wire {}\npub struct Settings {}\nimpl T for X {\n    type Data = ();\n}\n",
        ),
        file("keys/c.rs", "trait Keys: Send {}\n// struct Wire\n#[cfg(test)]\nmod tests {}\nstruct Wire;\n"),
        file("keys/tests/d.rs", "struct Wire;\n"),
        file(
            "log/e.rs",
            "type Keys = u8;\nfn f(structure: u8) {}\npub(in crate::log) unsafe trait Alone {}\n",
        ),
    ];
    let wire = "Wire: forward/b.rs:1, gate/a.rs:1";
    assert_eq!(shared_names(&files), ["Keys: keys/c.rs:1, log/e.rs:1", wire]);
}

#[test]
fn the_rules_see_what_they_look_for() {
    let text = "//! A header of this very file.\nuse crate::keys::jwks;\nuse crate::{log, time::Timestamp};\n\
                fn f() { crate::metrics::g() } // crate::app is only spoken of\n#[cfg(test)]\nmod tests { use crate::gate; }\n";
    let file = Source { path: PathBuf::from("forward/x.rs"), text: text.to_owned() };
    assert_eq!(file.module(), "forward");
    assert_eq!(file.without_tests().lines().count(), 4);
    let names: Vec<String> = file.imports().into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["keys", "log", "time", "metrics"]);
}

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// The module of the map that the file belongs to.
    fn module(&self) -> String {
        let first = self.path.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        first.trim_end_matches(".rs").to_owned()
    }

    /// Whether the file as a whole is compiled for tests only.
    fn is_test(&self) -> bool {
        self.path.iter().any(|part| part == "tests" || part == "tests.rs")
    }

    fn without_tests(&self) -> &str {
        self.text.split("#[cfg(test)]\n").next().unwrap_or_default()
    }

    /// Line and name of every type that is declared outside of functions and implementations.
    fn types(&self) -> impl Iterator<Item = (usize, String)> {
        let text = if self.is_test() { "" } else { self.without_tests() };
        text.lines().enumerate().filter_map(|(index, line)| {
            let line = match line.strip_prefix("pub") {
                Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
                Some(rest) => rest.trim_start(),
                None => line,
            };
            let line = line.strip_prefix("unsafe ").unwrap_or(line);
            let (kind, rest) = line.split_once(' ')?;
            ["struct", "enum", "trait", "type", "union"]
                .contains(&kind)
                .then(|| (index + 1, identifier(rest)))
        })
    }

    /// Line and name of every `crate::name` in code, also inside `use crate::{…}`. Tests may import from anywhere.
    fn imports(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        if self.is_test() {
            return found;
        }
        let code: Vec<&str> =
            self.without_tests().lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
        for (index, line) in code.iter().enumerate() {
            for (at, _) in line.match_indices("crate::") {
                let rest = &line[at + "crate::".len()..];
                if rest.starts_with('{') {
                    let group = rest.to_owned() + &code[index + 1..].concat();
                    found.extend(members(&group).into_iter().map(|name| (index + 1, name)));
                } else {
                    found.push((index + 1, identifier(rest)));
                }
            }
        }
        found
    }
}

/// The names that several types have, each with its places.
fn shared_names(sources: &[Source]) -> Vec<String> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in sources {
        for (line, name) in file.types() {
            places.entry(name).or_default().push(format!("{}:{line}", file.name()));
        }
    }
    places.retain(|name, places| places.len() > 1 && !SHARED_NAMES.contains(&name.as_str()));
    let shared = |(name, mut places): (String, Vec<String>)| {
        places.sort_unstable();
        format!("{name}: {}", places.join(", "))
    };
    places.into_iter().map(shared).collect()
}

/// The first identifiers of the members of `{a::b, c::{d, e}, f}`.
fn members(group: &str) -> Vec<String> {
    let (mut depth, mut member, mut names) = (0, String::new(), Vec::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 1 && c == ',' || depth == 0 {
            names.push(identifier(member.trim()));
            member.clear();
        } else if !(depth == 1 && c == '{' && member.is_empty()) {
            member.push(c);
        }
        if depth == 0 {
            break;
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Each module of `lib.rs` with its place: higher numbers lie lower.
fn map() -> BTreeMap<String, usize> {
    let text = std::fs::read_to_string(root().join("lib.rs")).unwrap();
    let declared = text.lines().map(|line| line.strip_prefix("pub ").unwrap_or(line));
    let names = declared.filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    let map: BTreeMap<String, usize> =
        names.enumerate().map(|(place, name)| (name.to_owned(), place)).collect();
    assert!(map.len() > 5, "lib.rs lists its modules");
    map
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root(), &mut found);
    assert!(found.len() > 10, "the source files are found");
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push(Source { path: path.strip_prefix(root()).unwrap().to_owned(), text });
        }
    }
}
