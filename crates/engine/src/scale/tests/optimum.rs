//! The solver against the exact optimum of random small problems.

use super::super::oracle::{Trial, optimum, outcome_of, random_problem, trial};
use super::super::solve::solve;

/// Rounds in CI: about two seconds. `volley bench scale` does as many as asked.
const ROUNDS: u64 = 400;

#[test]
fn random_bursts_are_bought_for_as_the_optimum_does() {
    let found = trial(1, ROUNDS);
    let Trial { rounds, optimal, more_above, unserved, .. } = found;
    assert_eq!(rounds, ROUNDS);
    assert_eq!((unserved, more_above), (0, 0), "{found:?}");
    assert!(optimal * 100 >= rounds * 99, "{found:?}");
    assert!(found.with_purchases * 2 > rounds, "most problems need something bought: {found:?}");
}

#[test]
fn a_trial_is_the_same_each_time() {
    assert_eq!(trial(7, 20), trial(7, 20));
    assert_ne!(format!("{:?}", random_problem(1)), format!("{:?}", random_problem(2)));
}

#[test]
fn the_oracle_agrees_with_what_is_plain() {
    // It may find no better than the solver where the solver is right by construction: one shape, one pool.
    for seed in 0..200 {
        let mut problem = random_problem(seed);
        problem.runs = vec![(0, 5)];
        problem.offers.truncate(1);
        problem.there.clear();
        let ours = outcome_of(&problem, &solve(&problem));
        assert_eq!(ours, optimum(&problem), "seed {seed}: {problem:?}");
    }
}
