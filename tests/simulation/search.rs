//! Runs worlds until one disagrees with its specification, and looks for the shortest script that shows it.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::random::Random;

/// Steps of one world: few enough that a disagreement has a short history.
const EPISODE: u64 = 2_000;

/// The product and its specification disagree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disagreement(pub(crate) String);

/// How often what was answered.
pub(crate) type Tally = BTreeMap<String, u64>;

/// The product and a specification, side by side.
pub(crate) trait World: Sized {
    /// How it begins.
    type Beginning: Copy + Debug + Send;
    /// What can happen to it.
    type Step: Copy + Debug + Send;

    fn beginning(random: &mut Random) -> Self::Beginning;
    async fn new(beginning: Self::Beginning) -> Self;
    fn step(&self, random: &mut Random) -> Self::Step;
    async fn take(&mut self, step: Self::Step) -> Result<(), Disagreement>;
    fn tally(&self) -> &Tally;
}

/// What one world began with, and what happened to it.
#[derive(Clone)]
struct Script<W: World> {
    beginning: W::Beginning,
    steps: Vec<W::Step>,
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Makes this share of all steps. Fails with the seed and the shortest script found; says how often what was answered.
pub(crate) fn run<W: World>(share: u64) -> Tally {
    let episodes = (number("PORTCULLIS_SIMULATION_STEPS", 1_000_000) * share / 100).div_ceil(EPISODE);
    let first = number("PORTCULLIS_SIMULATION_SEED", 1);
    let (next, all) = (AtomicU64::new(0), Mutex::new(Tally::new()));
    let work = || {
        loop {
            let episode = next.fetch_add(1, Ordering::Relaxed);
            if episode >= episodes {
                return None;
            }
            match explore::<W>(first + episode) {
                Ok(tally) => {
                    let mut all = all.lock().unwrap();
                    tally.into_iter().for_each(|(what, count)| *all.entry(what).or_default() += count);
                }
                Err((script, found)) => {
                    next.store(episodes, Ordering::Relaxed);
                    return Some((first + episode, script, found));
                }
            }
        }
    };
    let failed = thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(2, usize::from).min(8);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().filter_map(|worker| worker.join().unwrap()).next()
    });
    if let Some((seed, script, found)) = failed {
        let (script, found) = shorten(script, found);
        panic!("seed {seed}: {}\n{}", found.0, readable(&script));
    }
    all.into_inner().unwrap()
}

/// Runs one world; what happened to it, when the specification disagrees in the end.
fn explore<W: World>(seed: u64) -> Result<Tally, (Script<W>, Disagreement)> {
    let random = &mut Random::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let beginning = W::beginning(random);
    runtime().block_on(async {
        let mut script = Script { beginning, steps: Vec::new() };
        let mut world = W::new(beginning).await;
        for _ in 0..EPISODE {
            let step = world.step(random);
            script.steps.push(step);
            if let Err(found) = world.take(step).await {
                return Err((script, found));
            }
        }
        Ok(world.tally().clone())
    })
}

/// Runs a script again.
fn replay<W: World>(script: &Script<W>) -> Result<(), (usize, Disagreement)> {
    runtime().block_on(async {
        let mut world = W::new(script.beginning).await;
        for (index, step) in script.steps.iter().enumerate() {
            world.take(*step).await.map_err(|found| (index, found))?;
        }
        Ok(())
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// Takes steps out, in ever smaller parts, as long as something is found all the same.
fn shorten<W: World>(mut script: Script<W>, mut found: Disagreement) -> (Script<W>, Disagreement) {
    let mut part = script.steps.len();
    while part > 0 {
        let (before, mut from) = (script.steps.len(), 0);
        while from < script.steps.len() {
            let mut steps = script.steps.clone();
            steps.drain(from..(from + part).min(steps.len()));
            let mut shorter = Script { beginning: script.beginning, steps };
            match replay(&shorter) {
                Err((last, other)) => {
                    shorter.steps.truncate(last + 1);
                    (script, found) = (shorter, other);
                }
                Ok(()) => from += part,
            }
        }
        if part > 1 || script.steps.len() == before {
            part /= 2;
        }
    }
    (script, found)
}

fn readable<W: World>(script: &Script<W>) -> String {
    let mut text = format!("{:?}\n", script.beginning);
    for step in &script.steps {
        writeln!(text, "{step:?}").unwrap();
    }
    text
}
