//! What is remembered, for how long, and what happens when there is no space.

use super::*;

const KEEP: Duration = Duration::from_secs(90);

fn proof(n: u64) -> Key {
    Key::of_all(&[&n.to_string()])
}

fn at(millis: i64) -> Monotonic {
    Monotonic::from_millis(millis)
}

#[tokio::test]
async fn a_proof_is_used_once() {
    let replays = Replays::new(1_000, None);
    for n in 0..500 {
        assert_eq!(replays.claim(proof(n), KEEP, at(0)).await, ProofUse::First, "{n}");
    }
    for n in 0..500 {
        assert_eq!(replays.claim(proof(n), KEEP, at(1)).await, ProofUse::Again, "{n}");
    }
    assert_eq!(replays.tracked(), 500);
}

#[tokio::test]
async fn a_proof_is_remembered_for_as_long_as_it_could_be_used() {
    let replays = Replays::new(10, None);
    assert_eq!(replays.claim(proof(1), KEEP, at(500)).await, ProofUse::First);
    for millis in [500, 90_500, 91_500, 91_999] {
        assert_eq!(replays.claim(proof(1), KEEP, at(millis)).await, ProofUse::Again, "{millis}");
    }
    assert_eq!(
        replays.claim(proof(1), KEEP, at(92_000)).await,
        ProofUse::First,
        "it cannot be accepted then"
    );
    assert_eq!(replays.tracked(), 1);
    assert_eq!(replays.claim(proof(1), Duration::from_secs(5), at(92_000)).await, ProofUse::Again);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_until_there_is_room() {
    let replays = Replays::new(3, None);
    for n in 0..3 {
        assert_eq!(replays.claim(proof(n), KEEP, at(0)).await, ProofUse::First);
    }
    for n in 3..100 {
        assert_eq!(replays.claim(proof(n), KEEP, at(1_000)).await, ProofUse::Unknown);
    }
    assert_eq!(replays.tracked(), 3);
    assert_eq!(replays.claim(proof(0), KEEP, at(1_000)).await, ProofUse::Again, "that is known all the same");
    replays.reconfigure(4);
    assert_eq!(replays.claim(proof(3), KEEP, at(1_000)).await, ProofUse::First);
    assert_eq!(replays.claim(proof(4), KEEP, at(1_000)).await, ProofUse::Unknown);
    for n in 4..8 {
        assert_eq!(replays.claim(proof(n), KEEP, at(1_000_000)).await, ProofUse::First, "the others left");
    }
}

#[test]
fn of_many_who_send_one_proof_at_once_one_is_first() {
    let replays = Replays::new(100_000, None);
    let first = std::thread::scope(|scope| {
        let count = |_| {
            let mut first = 0;
            for n in 0..2_000 {
                first += usize::from(replays.claim_here(proof(n), KEEP, at(0)) == ProofUse::First);
            }
            first
        };
        let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || count(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
    });
    assert_eq!((first, replays.tracked()), (2_000, 2_000));
}
