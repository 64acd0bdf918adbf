//! What happens in a round of a drill: events and pauses, all of them chosen by a seed. Knows
//! nothing of processes.

use std::time::Duration;

/// Workers of a round.
pub const WORKERS: u64 = 3;
/// Clients of a round, each with one group.
pub const CLIENTS: u64 = 4;
/// Containers of a group.
const GROUP_CONTAINERS: (u64, u64) = (10, 30);
/// How long a container works, in ms.
const WORK_MS: (u64, u64) = (0, 1_500);
/// When a client begins, in ms: some work is there through all of a round.
const BEGIN_MS: (u64, u64) = (0, 2_000);
/// Events of a round. Each takes at most one attempt of a container, and by default there are five.
const EVENTS: (u64, u64) = (2, 4);
/// Pause before an event, in ms.
const PAUSE_MS: (u64, u64) = (0, 700);
/// How long something is away, frozen or cut off, in ms: some of it longer than a lease of 3 s.
const AWAY_MS: (u64, u64) = (0, 4_500);
/// How far a clock is set, in seconds.
const CLOCK_S: (u64, u64) = (1, 7_200);

/// What a drill is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Servers,
    Workers,
    Both,
    Clients,
    Frozen,
    Connections,
    Disk,
    Syncs,
    Clock,
    All,
}

/// Whose connections to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Workers,
    Clients,
}

/// Something that goes wrong, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    KillServer { away: Duration },
    KillWorker { worker: usize, away: Duration },
    KillBoth { worker: usize, away: Duration },
    KillClient { client: usize },
    FreezeServer { away: Duration },
    FreezeWorker { worker: usize, away: Duration },
    Cut { side: Side },
    Delay { side: Side, by: Duration, away: Duration },
    Stall { side: Side, away: Duration },
    FillDisk { to_the_last_byte: bool, away: Duration },
    FailSyncs { each: u64, away: Duration },
    SetClock { ahead_s: i64 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub pause: Duration,
    pub event: Event,
}

/// One client's submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub containers: u64,
    pub work: Duration,
    /// When its client begins.
    pub pause: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    pub groups: Vec<Group>,
    pub steps: Vec<Step>,
}

impl Script {
    /// The script of a seed: always the same one.
    pub fn of(kind: Kind, seed: u64) -> Self {
        let mut choice = Choice(seed ^ ((kind as u64) << 56));
        let group = |choice: &mut Choice| Group {
            containers: choice.between(GROUP_CONTAINERS),
            work: choice.ms(WORK_MS),
            pause: choice.ms(BEGIN_MS),
        };
        let groups = (0..CLIENTS).map(|_| group(&mut choice)).collect();
        let events = choice.between(EVENTS);
        let steps = (0..events).map(|_| Step { pause: choice.ms(PAUSE_MS), event: event(kind, &mut choice) }).collect();
        Self { groups, steps }
    }
}

fn event(kind: Kind, choice: &mut Choice) -> Event {
    let away = choice.ms(AWAY_MS);
    let (worker, client) = (choice.below(WORKERS) as usize, choice.below(CLIENTS) as usize);
    let side = if choice.below(3) == 0 { Side::Clients } else { Side::Workers };
    match kind {
        Kind::Servers => Event::KillServer { away: away / 4 },
        Kind::Workers => Event::KillWorker { worker, away },
        Kind::Both => Event::KillBoth { worker, away: away / 2 },
        Kind::Clients => Event::KillClient { client },
        Kind::Frozen if choice.below(3) == 0 => Event::FreezeServer { away },
        Kind::Frozen => Event::FreezeWorker { worker, away },
        Kind::Connections => match choice.below(3) {
            0 => Event::Cut { side },
            1 => Event::Delay { side, by: choice.ms((1, 300)), away: away / 2 },
            _ => Event::Stall { side, away },
        },
        Kind::Disk => Event::FillDisk { to_the_last_byte: choice.below(3) > 0, away: away / 3 },
        Kind::Syncs => Event::FailSyncs { each: choice.between((1, 3)), away: away / 3 },
        Kind::Clock if choice.below(3) == 0 => Event::KillServer { away: away / 4 },
        Kind::Clock => {
            let seconds = choice.between(CLOCK_S).cast_signed();
            Event::SetClock { ahead_s: if choice.below(2) == 0 { seconds } else { -seconds } }
        }
        Kind::All => {
            const KINDS: [Kind; 9] = [
                Kind::Servers,
                Kind::Workers,
                Kind::Both,
                Kind::Clients,
                Kind::Frozen,
                Kind::Connections,
                Kind::Disk,
                Kind::Syncs,
                Kind::Clock,
            ];
            event(KINDS[choice.below(KINDS.len() as u64) as usize], choice)
        }
    }
}

/// A small generator (splitmix64).
struct Choice(u64);

impl Choice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// Both ends included.
    fn between(&mut self, (first, last): (u64, u64)) -> u64 {
        first + self.below(last - first + 1)
    }

    fn ms(&mut self, between: (u64, u64)) -> Duration {
        Duration::from_millis(self.between(between))
    }
}

#[test]
fn a_seed_is_a_script() {
    assert_eq!(Script::of(Kind::All, 7), Script::of(Kind::All, 7));
    assert_ne!(Script::of(Kind::All, 7), Script::of(Kind::All, 8));
    assert_ne!(Script::of(Kind::Workers, 7).groups, Script::of(Kind::Servers, 7).groups);
}
