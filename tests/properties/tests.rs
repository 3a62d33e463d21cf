//! Every property on its seeds, and on mixtures of them that proptest makes and makes shorter.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{FileFailurePersistence, TestError, TestRunner};

use super::{ALL, Property};

/// Mixtures that each property is tried with.
const CASES: u32 = 1500;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds")
}

fn seeds(property: Property) -> Vec<Vec<u8>> {
    let files = fs::read_dir(folder().join(property.name)).expect("a folder of seeds");
    let seeds: Vec<Vec<u8>> =
        files.map(|file| fs::read(file.expect("a seed").path()).expect("a seed")).collect();
    assert!(!seeds.is_empty(), "{} has no seeds", property.name);
    seeds
}

/// What to do to a mixture.
#[derive(Debug, Clone)]
enum Change {
    Remove(Index, u8),
    Insert(Index, Vec<u8>),
    Replace(Index, u8),
    Double(Index, u8),
}

fn change() -> impl Strategy<Value = Change> {
    let tricky = prop::sample::select(b"\r\n\t :;,=/\\%.*\"{}[]-_\0\x7f\xff+0129aAzZ".to_vec());
    let byte = prop_oneof![4 => tricky, 1 => any::<u8>()];
    prop_oneof![
        (any::<Index>(), 1u8..20).prop_map(|(at, count)| Change::Remove(at, count)),
        (any::<Index>(), prop::collection::vec(byte.clone(), 1..4))
            .prop_map(|(at, new)| Change::Insert(at, new)),
        (any::<Index>(), byte).prop_map(|(at, new)| Change::Replace(at, new)),
        (any::<Index>(), 1u8..40).prop_map(|(at, count)| Change::Double(at, count)),
    ]
}

/// Parts of seeds one after the other, with a few changes.
fn mixtures(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let part = (prop::sample::select(seeds), any::<Index>(), any::<Index>(), any::<bool>()).prop_map(
        |(seed, one, other, whole)| {
            let (one, other) = (one.index(seed.len() + 1), other.index(seed.len() + 1));
            if whole { seed } else { seed[one.min(other)..one.max(other)].to_vec() }
        },
    );
    (prop::collection::vec(part, 1..4), prop::collection::vec(change(), 0..6))
        .prop_map(|(parts, changes)| changes.into_iter().fold(parts.concat(), apply))
}

fn apply(mut bytes: Vec<u8>, change: Change) -> Vec<u8> {
    let range = |bytes: &[u8], at: Index, count: u8| {
        let start = at.index(bytes.len() + 1);
        start..(start + usize::from(count)).min(bytes.len())
    };
    match change {
        Change::Remove(at, count) => drop(bytes.drain(range(&bytes, at, count))),
        Change::Insert(at, new) => drop(bytes.splice(range(&bytes, at, 0), new)),
        Change::Replace(at, new) => drop(bytes.splice(range(&bytes, at, 1), [new])),
        Change::Double(at, count) => {
            let range = range(&bytes, at, count);
            let copy = bytes[range.clone()].to_vec();
            drop(bytes.splice(range.end..range.end, copy));
        }
    }
    bytes
}

fn holds(name: &str) {
    let property = *ALL.iter().find(|property| property.name == name).expect("a property");
    let seeds = seeds(property);
    for seed in &seeds {
        (property.check)(seed);
    }
    let config = ProptestConfig {
        cases: CASES,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    };
    let outcome = TestRunner::new(config).run(&mixtures(seeds), |input| {
        (property.check)(&input);
        Ok(())
    });
    match outcome {
        Err(TestError::Fail(why, input)) => panic!("{name} fails on {}: {why}", input.escape_ascii()),
        Err(TestError::Abort(why)) => panic!("{name} was given up: {why}"),
        Ok(()) => {}
    }
}

#[test]
fn every_property_has_seeds_and_every_seed_a_property() {
    let mut folders: Vec<String> = fs::read_dir(folder())
        .expect("seeds")
        .map(|entry| entry.expect("a folder").file_name().to_string_lossy().into_owned())
        .collect();
    folders.sort();
    let names: Vec<&str> = ALL.iter().map(|property| property.name).collect();
    assert_eq!(folders, names);
    for name in names {
        assert!(include_str!("tests.rs").contains(&format!("holds({name:?})")), "{name} has no test");
    }
}

#[test]
fn an_answer_reads_the_same_however_it_is_split() {
    holds("answers");
}

#[test]
fn every_problem_of_a_configuration_names_a_line_that_exists() {
    holds("configuration");
}

#[test]
fn an_event_in_a_batch_is_the_event_alone() {
    holds("events");
}

#[test]
fn no_field_that_folds_to_an_identity_or_forwarding_name_survives() {
    holds("fields");
}

#[test]
fn a_form_is_what_a_plain_reader_makes_of_it() {
    holds("form");
}

#[test]
fn a_token_is_what_serde_json_makes_of_its_parts() {
    holds("jose");
}

#[test]
fn a_key_is_judged_alone_as_in_its_set() {
    holds("jwks");
}

#[test]
fn an_entry_of_the_shared_log_reads_as_it_is_written() {
    holds("log_entry");
}

#[test]
fn requests_are_those_that_hyper_reads_however_they_are_split() {
    holds("requests");
}

#[test]
fn the_router_finds_what_a_search_through_all_routes_finds() {
    holds("routes");
}

#[test]
fn only_a_listed_origin_is_allowed() {
    holds("origins");
}

#[test]
fn what_is_put_into_an_outbox_is_written_once_and_in_order() {
    holds("outbox");
}

#[test]
fn a_signal_is_accepted_only_for_its_issuer_and_the_past() {
    holds("signals");
}

#[test]
fn a_target_is_sent_as_it_was_judged() {
    holds("target");
}

#[test]
fn a_tls_connection_carries_what_was_written_however_it_is_cut() {
    holds("tls");
}
