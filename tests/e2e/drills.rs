//! Drills: real processes that are killed, frozen, cut off, deprived of disk and clock while
//! clients wait for their containers, by a script of a seed. The same seed plays the same script
//! (when what happens is the machine's). `VOLLEY_SEED` names the first seed, `VOLLEY_DRILLS` how
//! many rounds of each kind.

mod cast;
mod checks;
mod proxy;
mod script;

use crate::scene::Scene;
use cast::Cast;
use script::{Kind, Script};

/// Rounds of each kind in a normal run.
const ROUNDS: u64 = 3;

fn argument(name: &str, default: u64) -> u64 {
    let number = |text: String| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number"));
    std::env::var(name).map_or(default, number)
}

fn drill(test: &str, kind: Kind) {
    let (first, rounds) = (argument("VOLLEY_SEED", 1), argument("VOLLEY_DRILLS", ROUNDS));
    for seed in first..first + rounds {
        let script = Script::of(kind, seed);
        println!("seed {seed}: {:?}", script.steps);
        println!("  again: VOLLEY_SEED={seed} VOLLEY_DRILLS=1 cargo test -p volley-cli --test e2e drills::{test}");
        round(kind, &script);
    }
}

fn round(kind: Kind, script: &Script) {
    let scene = Scene::new();
    let mut cast = Cast::new(&scene, kind, script);
    for step in &script.steps {
        std::thread::sleep(step.pause);
        cast.play(&step.event);
    }
    cast.join_clients();
    checks::check_ends(&scene, &cast, script.groups.iter().map(|group| group.containers).sum());
    checks::check_capacity(&scene, &cast);
}

macro_rules! drills {
    ($($test:ident: $kind:expr,)*) => {
        $(#[test]
        fn $test() {
            drill(stringify!($test), $kind);
        })*
    };
}

drills! {
    servers_are_killed: Kind::Servers,
    workers_are_killed: Kind::Workers,
    server_and_worker_are_killed_at_once: Kind::Both,
    clients_are_killed: Kind::Clients,
    processes_are_frozen: Kind::Frozen,
    connections_are_cut_delayed_and_stalled: Kind::Connections,
    the_disk_is_full: Kind::Disk,
    syncs_fail: Kind::Syncs,
    the_clock_jumps: Kind::Clock,
    everything_goes_wrong: Kind::All,
}
