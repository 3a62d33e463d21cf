//! How long faults are used, how many there are at most, and how much memory each may take.

use super::*;
use crate::enforce::token::IssuerIndex;
use crate::identity::Key;

fn key(number: u64) -> ProofKey {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    ProofKey::from(Key::from_bytes(bytes))
}

fn fault(generation: u64) -> LastingFault {
    LastingFault {
        check: "signature",
        reason: Reason::BadSignature,
        claimed: None,
        validity: None,
        generation: Some(generation),
    }
}

fn at(millis: i64) -> Monotonic {
    Monotonic::from_millis(1_000_000 + millis)
}

fn generation(table: &Faults, number: u64, millis: i64) -> Option<u64> {
    table.get(key(number), at(millis)).and_then(|fault| fault.generation)
}

#[test]
fn a_fault_is_believed_for_a_minute_and_leaves_with_the_sweep() {
    let table = Faults::new();
    table.put(key(1), fault(7), at(0));
    table.put(key(2), fault(8), at(1));
    for (millis, expected) in [(0, Some(7)), (59_999, Some(7)), (60_000, None), (70_000, None)] {
        assert_eq!(generation(&table, 1, millis), expected, "{millis}");
    }
    for (millis, left) in [(59_999, 2), (60_000, 1), (60_000, 1), (60_001, 0)] {
        table.sweep(at(millis));
        assert_eq!(table.len(), left, "{millis}");
    }
    assert_eq!(generation(&table, 2, 1), None);
}

#[test]
fn tokens_of_one_place_are_not_confused_and_the_later_one_stays() {
    let (table, slots) = (Faults::new(), SLOTS as u64);
    for (number, generation) in [(5, 1), (5 + slots, 2), (6, 3)] {
        table.put(key(number), fault(generation), at(0));
    }
    let found = [5, 5 + slots, 6, 6 + slots, 7].map(|number| generation(&table, number, 1));
    assert_eq!(found, [None, Some(2), Some(3), None, None]);
    assert_eq!(table.len(), 2);
}

#[test]
fn a_flood_fills_every_place_once_and_no_fault_takes_more_than_half_a_kilobyte() {
    let table = Faults::new();
    for number in 0..20_000 {
        table.put(key(number * 7), fault(number), at(0));
    }
    assert_eq!((table.len(), SLOTS), (4096, 4096));
    // Two allocations with their reference counts, and two strings of at most 64 bytes that a token may
    // claim.
    let longest = || Some("k".repeat(64).into());
    let claimed = Claimed { issuer: IssuerIndex(0), kid: longest(), client: longest() };
    let texts = claimed.kid.as_ref().map_or(0, |kid| kid.len()) * 2;
    assert!(size_of::<HeldFault>() + size_of::<LastingFault>() + 32 + texts <= 512);
}
