//! Several servers race to buy the same machines on one real redis-server, and are killed at the worst moments: before and
//! after a purchase is recorded, before and after its machine is made, before the answer is noted. What was planned is
//! bought, nothing twice. `VOLLEY_SEED` asks for another first seed, `VOLLEY_RACES` for another number of rounds.

mod cloud;
#[allow(dead_code, reason = "the store's tests ask more of it")]
#[path = "../../../store/tests/conformance/redis_server.rs"]
mod redis_server;
mod round;
mod server;

/// Rounds of a normal run; `cargo xtask soak scale-race` takes hundreds.
const ROUNDS: u64 = 6;

#[allow(clippy::disallowed_methods, reason = "a test's own arguments come from its environment")]
fn argument(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not '{text}'")),
        Err(_) => default,
    }
}

#[test]
fn a_machine_that_is_made_twice_is_destroyed_once() {
    round::doubled();
}

#[test]
fn racing_servers_buy_what_is_planned_whenever_they_are_killed() {
    let (first, rounds) = (argument("VOLLEY_SEED", 1), argument("VOLLEY_RACES", ROUNDS));
    let (mut bought, mut killed) = (0, 0);
    for seed in first..first + rounds {
        // Known even when a round never ends.
        println!("seed {seed}");
        let raced = round::race(seed);
        println!("  {} servers bought {}; killed: {:?}", raced.servers, raced.bought, raced.killed);
        bought += raced.bought;
        killed += raced.killed.len();
    }
    println!(
        "{rounds} rounds from seed {first}: {bought} machines bought as planned, {killed} servers killed on the way"
    );
    assert!(killed > 0, "the rounds kill servers");
}
