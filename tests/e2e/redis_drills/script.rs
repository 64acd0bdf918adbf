//! What happens in a storm, by a seed: which, when, for how long. Knows no processes.

use std::time::Duration;

/// Servers and workers of a storm.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub servers: usize,
    pub workers: usize,
    pub containers: u64,
    pub steps: usize,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy)]
pub enum Event {
    KillServer { server: usize },
    KillWorker { worker: usize, away: Duration },
    KillServerAndWorker { server: usize, worker: usize },
    KillRedis { away: Duration },
    FreezeRedis { away: Duration },
    FreezeServer { server: usize, away: Duration },
    CutReplies { count: u64 },
    FlushScripts,
    BreakConnections,
}

#[derive(Debug)]
pub struct Step {
    pub pause: Duration,
    pub event: Event,
}

/// A small generator (xorshift): the same seed gives the same script.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

const KINDS: u64 = 9;

pub fn of(seed: u64, size: Size) -> Vec<Step> {
    // Neighbouring seeds are to differ from the first number on.
    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    // Each kind at least once, from a kind of chance on.
    let first = chance.below(KINDS);
    let kinds = (0..size.steps as u64).map(|step| match step < KINDS {
        true => Some((first + step) % KINDS),
        false => None,
    });
    let kinds: Vec<Option<u64>> = kinds.collect();
    let mut steps = Vec::with_capacity(size.steps);
    for kind in kinds {
        let kind = kind.unwrap_or_else(|| chance.below(KINDS));
        let server = chance.below(size.servers as u64) as usize;
        let worker = chance.below(size.workers as u64) as usize;
        let event = match kind {
            0 => Event::KillServer { server },
            1 => Event::KillWorker { worker, away: chance.millis(0, 5_000) },
            2 => Event::KillServerAndWorker { server, worker },
            3 => Event::KillRedis { away: chance.millis(0, 1_500) },
            4 => Event::FreezeRedis { away: chance.millis(500, 2_500) },
            5 => Event::FreezeServer { server, away: chance.millis(500, 6_000) },
            6 => Event::CutReplies { count: 1 + chance.below(8) },
            7 => Event::FlushScripts,
            _ => Event::BreakConnections,
        };
        steps.push(Step { pause: chance.millis(0, 1_500), event });
    }
    steps
}
