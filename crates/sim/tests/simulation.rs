//! Seeds of the simulation. `VOLLEY_SEED` asks for another first seed, `VOLLEY_ROUNDS` for
//! another number of them; with one round, everything that happens is printed.

use volley_sim::{Scenario, expected_starts, run};

/// Seeds of a normal run; `cargo xtask soak simulation` takes thousands.
const ROUNDS: u64 = 200;
/// Cells whose expected starts are held against what comes. Single ones differ much (a third to nearly all are near), and the sum of a
/// few does; `volley bench explain` takes fifty.
const CELLS: u64 = 14;
/// Expected starts that are within 25 % or 2 s of what comes, at least.
const NEAR_PERCENT: usize = 70;

#[allow(clippy::disallowed_methods, reason = "a test's own arguments come from its environment")]
fn argument(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not '{text}'")),
        Err(_) => default,
    }
}

#[test]
fn everything_accepted_ends_once_whatever_goes_wrong() {
    let (first, rounds) = (argument("VOLLEY_SEED", 1), argument("VOLLEY_ROUNDS", ROUNDS));
    let (mut steps, mut containers) = (0, 0);
    for seed in first..first + rounds {
        // Known even when a run never ends.
        println!("seed {seed}");
        match run(&Scenario::of_seed(seed), rounds == 1) {
            Ok(summary) => {
                steps += summary.steps;
                containers += summary.containers;
            }
            Err(failure) => {
                panic!("{failure}\nseed {seed} breaks it; replay: cargo xtask soak simulation --rounds 1 --seed {seed}")
            }
        }
    }
    println!("{rounds} seeds from {first}: {steps} steps, {containers} containers");
    assert!(containers >= rounds * 5, "the scenarios ask for work");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 1..=10 {
        let scenario = Scenario::of_seed(seed);
        let runs = [run(&scenario, false), run(&scenario, false)].map(|run| run.expect("a run that is right"));
        assert_eq!(runs[0], runs[1], "seed {seed}");
    }
}

#[test]
fn expected_starts_are_near_what_comes() {
    let (mut told, mut near) = (0, 0);
    let first = argument("VOLLEY_SEED", 1);
    for seed in first..first + argument("VOLLEY_CELLS", CELLS) {
        let guesses = expected_starts(seed).unwrap_or_else(|failure| panic!("{failure}\nseed {seed}"));
        if seed == first {
            assert_eq!(expected_starts(seed).expect("as before"), guesses, "the same seed, the same answers");
        }
        let of_seed = guesses.told.iter().filter(|guess| guess.is_near()).count();
        for guess in guesses.told.iter().filter(|guess| !guess.is_near()) {
            println!("seed {seed}: {guess:?}");
        }
        println!("seed {seed}: {of_seed} of {}, {} unknown", guesses.told.len(), guesses.unknown);
        (told, near) = (told + guesses.told.len(), near + of_seed);
    }
    assert!(told > 200, "the cells are always full: {told}");
    assert!(near * 100 >= told * NEAR_PERCENT, "{near} of {told} within 25 % or 2 s");
}
