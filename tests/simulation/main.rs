//! A deterministic simulation: the real decision, sessions, revocations, event log and store, on clocks that are wrong by
//! up to years, through reloads, restarts, kills and late answers, against plain specifications.
//!
//! `PORTCULLIS_SIMULATION_STEPS` sets how many steps are made in all, `PORTCULLIS_SIMULATION_SEED` where they begin.
//! A disagreement is printed with its seed and the shortest script that still shows it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail where they stand")]

mod ahead;
mod fleet;
mod gate;
mod news;
mod random;
mod search;
mod specification;
mod steps;
mod world;

#[test]
fn a_token_passes_exactly_when_it_must_whatever_clocks_reloads_and_kills_do() {
    let tally = search::run::<world::Alone>(70);
    println!("{tally:#?}");
    for answer in ["passes", "Expired", "FromTheFuture", "TooLongLived", "Ended", "BeforeState", "Idle"] {
        assert!(tally.contains_key(answer), "no token was ever answered {answer}: {tally:?}");
    }
}

#[test]
fn gates_on_a_shared_store_agree_on_idle_tokens_however_late_its_answers_are() {
    let tally = search::run::<fleet::Fleet>(15);
    println!("{tally:#?}");
    for answer in ["passes", "passes after a look-up", "denied after a look-up", "not answered"] {
        assert!(tally.contains_key(answer), "no token was ever answered {answer}: {tally:?}");
    }
}

#[test]
fn a_token_of_an_issuer_ahead_ends_at_every_gate_with_an_event_after_its_first_use() {
    let tally = search::run::<ahead::Ahead>(10);
    println!("{tally:#?}");
    for answer in ["passes", "passes when answered", "ended", "ended by its first use", "not answered"] {
        assert!(tally.contains_key(answer), "no token was ever {answer}: {tally:?}");
    }
}

#[test]
fn a_follower_ends_what_its_leader_ended_in_whatever_pieces_the_news_arrive() {
    let tally = search::run::<news::Followers>(5);
    println!("{tally:#?}");
    for answer in ["passes", "ended", "restored"] {
        assert!(tally.contains_key(answer), "no token was ever {answer}: {tally:?}");
    }
}
