//! Rules for names: no two types of the crate share one, and the name of a test is a sentence.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};

use crate::sources::{Source, is_test_only, line, of_both, of_crate};

/// Names that several types may have. Each room has its `Settings`, which code refers to by room: `gate::Settings`.
const SHARED_NAMES: [&str; 1] = ["Settings"];

/// Verbs in the forms used in names of tests. Words that are mostly nouns (`limits`, `answers`) are not
/// included: a name with no other verb reads like a heading.
const VERBS: &str = include_str!("verbs.txt");

#[test]
fn no_two_types_share_a_bare_name() {
    let found = of_crate(shared_names);
    assert!(
        found.is_empty(),
        "types of the same name; say in the name which one it is:\n{}",
        found.join("\n")
    );
}

#[test]
fn the_name_of_a_test_has_a_verb() {
    let found = of_both(tests_without_verb);
    assert!(
        found.is_empty(),
        "tests whose name does not say what happens (new verbs go into tests/house/verbs.txt):\n{}",
        found.join("\n")
    );
}

#[test]
fn verbs_are_sorted_and_listed_once() {
    let verbs: Vec<&str> = VERBS.lines().collect();
    let sorted: BTreeSet<&str> = verbs.iter().copied().collect();
    assert_eq!(verbs, sorted.into_iter().collect::<Vec<_>>());
}

/// The names that several types have, each with its locations.
fn shared_names(sources: &[Source]) -> Vec<String> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in sources {
        let mut types = Types(Vec::new());
        types.visit_file(&file.product);
        for (line, name) in types.0 {
            places.entry(name).or_default().push(format!("{}:{line}", file.path));
        }
    }
    places.retain(|name, places| places.len() > 1 && !SHARED_NAMES.contains(&name.as_str()));
    let shared = |(name, mut places): (String, Vec<String>)| {
        places.sort_unstable();
        format!("{name}: {}", places.join(", "))
    };
    places.into_iter().map(shared).collect()
}

/// Line and name of every type that is declared outside of functions and implementations.
struct Types(Vec<(usize, String)>);

impl<'ast> Visit<'ast> for Types {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let name = match item {
            syn::Item::Struct(it) => &it.ident,
            syn::Item::Enum(it) => &it.ident,
            syn::Item::Trait(it) => &it.ident,
            syn::Item::Type(it) => &it.ident,
            syn::Item::Union(it) => &it.ident,
            syn::Item::Mod(_) => return visit::visit_item(self, item),
            _ => return,
        };
        self.0.push((line(name), name.to_string()));
    }
}

fn tests_without_verb(sources: &[Source]) -> Vec<String> {
    let verbs: BTreeSet<&str> = VERBS.lines().collect();
    let mut found = Vec::new();
    for file in sources {
        let mut tests = Tests(Vec::new());
        tests.visit_file(&file.syntax);
        let nameless =
            tests.0.into_iter().filter(|(_, name)| !name.split('_').any(|word| verbs.contains(word)));
        found.extend(nameless.map(|(line, name)| format!("{}:{line}: {name}", file.path)));
    }
    found
}

/// Line and name of every test: functions with `#[test]` or `#[tokio::test]`, including those inside `proptest! { … }`.
struct Tests(Vec<(usize, String)>);

impl<'ast> Visit<'ast> for Tests {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        let is_test = function
            .attrs
            .iter()
            .any(|attribute| attribute.path().segments.last().is_some_and(|segment| segment.ident == "test"));
        if is_test {
            self.0.push((line(&function.sig.ident), function.sig.ident.to_string()));
        }
        visit::visit_item_fn(self, function);
    }

    fn visit_macro(&mut self, it: &'ast syn::Macro) {
        let mut names = Vec::new();
        for token in it.tokens.clone() {
            names.push(token.to_string());
            if let [.., attribute, function, name] = names.as_slice()
                && function == "fn"
                && attribute.replace(' ', "") == "[test]"
            {
                self.0.push((token.span().start().line, name.clone()));
            }
        }
    }
}

#[test]
fn the_rule_of_types_sees_what_it_looks_for() {
    let files = [
        Source::parsed(
            "src/gate/a.rs",
            "pub(super) struct Wire<S>(S);\npub struct Settings;\nimpl T for Wire { \n    type Data = ();\n}\n",
        ),
        Source::parsed(
            "src/forward/b.rs",
            "enum Wire {}\npub struct Settings {}\nimpl T for X {\n    type Data = ();\n}\n",
        ),
        Source::parsed(
            "src/keys/c.rs",
            "trait Keys: Send {}\n// struct Wire\n#[cfg(test)]\nmod tests { struct Wire; }\nstruct Behind;\n",
        ),
        Source::parsed(
            "src/log/e.rs",
            "type Keys = u8;\nfn f(structure: u8) {}\npub(in crate::log) unsafe trait Alone {}\nmod inner {\n\
             struct Behind; }\n",
        ),
    ];
    assert_eq!(
        shared_names(&files),
        [
            "Behind: src/keys/c.rs:5, src/log/e.rs:5",
            "Keys: src/keys/c.rs:1, src/log/e.rs:1",
            "Wire: src/forward/b.rs:1, src/gate/a.rs:1"
        ]
    );
    assert_eq!(shared_names(&files[..1]), [""; 0]);
}

#[test]
fn the_rule_of_test_names_sees_what_it_looks_for() {
    let text = "#[test]\nfn limits_and_addresses() {}\n#[test]\nfn limits_are_kept() {}\nfn helper_of_tests() {}\n\
                #[cfg(test)]\nmod tests {\n#[tokio::test(start_paused = true)]\nasync fn fields() {}\n\
                proptest! {\n#[test]\nfn bytes(a in 0..1) { f() }\n#[test]\nfn nothing_panics(a in 0..1) {}\n}\n}\n";
    assert_eq!(
        tests_without_verb(&[Source::parsed("src/a.rs", text)]),
        ["src/a.rs:2: limits_and_addresses", "src/a.rs:9: fields", "src/a.rs:12: bytes"]
    );
    assert!(is_test_only(&[syn::parse_quote!(#[test])]));
}
