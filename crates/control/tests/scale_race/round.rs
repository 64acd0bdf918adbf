//! One round: two or three servers, a burst, servers that die and come again; then what was bought is held against what
//! was to be bought.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use volley_control::ledger::{Answer, EventKind, Query};
use volley_model::{
    Bytes, Capacity, Cost, CpuMilli, Elastic, EventNumber, Machine, Millis, MinFree, Pool, PoolName, ProvisionerKind,
    Run, Spec, Submission, TenantName, WorkerStatus,
};
use volley_store::Store;
use volley_store::redis::RedisStore;

use crate::cloud::Cloud;
use crate::redis_server::RedisServer;
use crate::server::{Doom, MOMENTS, Moment, Server, redis};

/// Far longer than a round takes on a loaded machine.
const ROUND_MAX: Duration = Duration::from_secs(120);
/// Between two looks at whether all is done.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Events of one read.
const EVENTS_PAGE: u32 = 10_000;

/// What a round came to.
pub struct Raced {
    pub servers: usize,
    pub bought: u64,
    /// When those that were killed died.
    pub killed: Vec<Moment>,
}

/// Numbers from a seed (splitmix64, Steele, Lea and Flood 2014).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// A life that ends at some moment of its buying; or goes on.
    fn doom(&mut self) -> Doom {
        let moment = MOMENTS[self.below(MOMENTS.len() as u64) as usize];
        // Records and notes are written many at a time, machines are made one by one.
        let passes = match moment {
            Moment::BeforeMade | Moment::AfterMade => self.below(6) as u32,
            _ => self.below(2) as u32,
        };
        Doom::new(moment, passes)
    }
}

/// Machines that take `slots` containers of a core each.
fn pool(slots: u32) -> Pool {
    let capacity =
        Capacity { cpu: CpuMilli(1_000 * u64::from(slots)), memory: Bytes(1 << 34), slots, gpus: Vec::new() };
    let elastic = Elastic {
        provisioner: ProvisionerKind::Process,
        options: BTreeMap::new(),
        machine: Machine { capacity, labels: BTreeMap::new() },
        min: 0,
        max: 1_000,
        min_free: MinFree::default(),
        cost_per_hour: Cost(1),
        boot_time: Elastic::BOOT_TIME,
        boot_limit: Elastic::BOOT_LIMIT,
        // Nothing is given up in this time.
        idle_timeout: Millis::from_secs(3600),
        fallback_after: Elastic::FALLBACK_AFTER,
        in_flight_max: Elastic::PURCHASES,
        per_minute_max: Elastic::PURCHASES,
    };
    Pool { elastic: Some(elastic), ..Pool::with_defaults(PoolName::new("burst").expect("a good name")) }
}

fn burst(count: u32) -> Submission {
    let mut spec = Spec::of_command("true", &[]);
    spec.resources.cpu = CpuMilli(1_000);
    spec.resources.memory = Bytes(1 << 20);
    Submission {
        tenant: TenantName::default(),
        client_key: None,
        name: None,
        labels: BTreeMap::new(),
        runs: vec![Run { spec: Arc::new(spec), count }],
    }
}

/// The servers of a round, and what happens to them.
struct Round {
    cloud: Arc<Cloud>,
    options: volley_store::redis::RedisOptions,
    servers: Vec<Server>,
    numbers: Numbers,
    killed: Vec<Moment>,
    kills_max: usize,
}

/// Races once. Panics when anything is bought that was not planned, or not bought that was.
pub fn race(seed: u64) -> Raced {
    let (redis_server, cell) = RedisServer::cell();
    let mut numbers = Numbers(seed);
    let count = 2 + numbers.below(2) as usize;
    let lost_answers = [0, 3, 7][numbers.below(3) as usize];
    let mut round = Round {
        cloud: Arc::new(Cloud::new(lost_answers)),
        options: redis(&redis_server.url(), &cell),
        servers: Vec::new(),
        kills_max: 1 + numbers.below(4) as usize,
        killed: Vec::new(),
        numbers,
    };
    for _ in 0..count {
        let doom = round.next_doom();
        round.servers.push(Server::start(&round.options, &round.cloud, doom));
    }
    let slots = 1 + round.numbers.below(10) as u32;
    let applied = round.servers[0].ask(round.servers[0].control.apply_pool(pool(slots), None, false));
    applied.expect("a good pool");
    let mut containers = 0;
    // The second burst comes while the first is still bought for.
    for _ in 0..2 {
        let burst_size = 1 + round.numbers.below(60) as u32;
        containers += burst_size;
        let to = round.numbers.below(count as u64) as usize;
        round.submit(to, burst_size);
    }
    round.until_served();
    let planned = u64::from(containers.div_ceil(slots));
    round.check(planned, &format!("seed {seed}: {containers} containers, {slots} on a machine, {count} servers"));
    for server in round.servers {
        server.kill();
    }
    Raced { servers: count, bought: planned, killed: round.killed }
}

impl Round {
    fn next_doom(&mut self) -> Doom {
        // Those that live may all die, but no more than are to.
        if self.killed.len() + self.servers.len() < self.kills_max + 1 {
            self.numbers.doom()
        } else {
            Doom::new(Moment::Never, 0)
        }
    }

    fn submit(&mut self, to: usize, count: u32) {
        let server = &self.servers[to];
        let submitted = server.ask(server.control.submit(burst(count), 0));
        submitted.expect("there is room for it");
    }

    /// Until each container is on a worker: the dead are replaced, what was made registers.
    fn until_served(&mut self) {
        let started = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let store = runtime.block_on(RedisStore::open(self.options.clone())).expect("the redis-server answers");
        loop {
            self.replace_dead();
            self.boot();
            let Ok(Answer::Audit(audit)) = runtime.block_on(store.read(Query::Audit)) else { panic!("no audit") };
            assert_eq!(audit.violations, Vec::<String>::new());
            let Ok(Answer::Scale(state)) = runtime.block_on(store.read(Query::Scale)) else { panic!("no state") };
            let on_way = state.machines.iter().any(|machine| machine.record.stage.is_in_flight());
            if audit.assigned == audit.accepted && !on_way {
                return;
            }
            assert!(started.elapsed() < ROUND_MAX, "not served: {audit:?}, {state:?}");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn replace_dead(&mut self) {
        for place in 0..self.servers.len() {
            if self.servers[place].is_dead() {
                let dead = self.servers.swap_remove(place);
                self.killed.push(dead.doom.moment());
                dead.kill();
                let doom = self.next_doom();
                self.servers.push(Server::start(&self.options, &self.cloud, doom));
            }
        }
    }

    /// One more machine registers, by any server.
    fn boot(&mut self) {
        let Some(worker) = self.cloud.next_boot() else { return };
        let by = self.numbers.below(self.servers.len() as u64) as usize;
        let (server, stream) = (&self.servers[by], volley_model::Nonce(self.numbers.below(u64::MAX)));
        if server.ask(server.control.attach(worker.clone(), stream, None, (Vec::new(), Vec::new()))).is_err() {
            // Its server's session ended: it tries another.
            self.cloud.boot_later(worker);
        }
    }

    fn check(&self, planned: u64, what: &str) {
        let server = &self.servers[0];
        let after = EventNumber(0);
        let events = server.ask(server.control.read(Query::Events { after, max: EVENTS_PAGE, scope: None }));
        let Ok(Answer::Events(events)) = events else { panic!("{what}: no events") };
        let (mut records, mut ready) = (BTreeSet::new(), BTreeSet::new());
        for event in &events.events {
            match &event.kind {
                EventKind::Worker { worker, status: WorkerStatus::Provisioning } => {
                    assert!(records.insert(worker.clone()), "{what}: {worker} was bought twice");
                }
                EventKind::Worker { worker, status: WorkerStatus::Ready } => drop(ready.insert(worker.clone())),
                _ => {}
            }
        }
        assert_eq!(records, ready, "{what}: each record became a worker");
        let (made, destroyed) = self.cloud.made_and_destroyed();
        assert_eq!(records.len() as u64, planned, "{what}: bought");
        assert_eq!(made.len() as u64, planned, "{what}: made {made:?}");
        assert_eq!(made.iter().cloned().collect::<BTreeSet<_>>(), records, "{what}: each record's machine was made");
        assert_eq!(destroyed, [], "{what}: nothing was made that had to be destroyed");
    }
}

/// Two machines for one record: the one that the record names stays, the other is found in the list and destroyed.
pub fn doubled() {
    let (redis_server, cell) = RedisServer::cell();
    let mut round = Round {
        cloud: Arc::new(Cloud::that_doubles()),
        options: redis(&redis_server.url(), &cell),
        servers: Vec::new(),
        kills_max: 0,
        killed: Vec::new(),
        numbers: Numbers(1),
    };
    round.servers.push(Server::start(&round.options, &round.cloud, Doom::new(Moment::Never, 0)));
    let applied = round.servers[0].ask(round.servers[0].control.apply_pool(pool(10), None, false));
    applied.expect("a good pool");
    round.submit(0, 30);
    round.until_served();
    let started = Instant::now();
    let gone = loop {
        let (_, destroyed) = round.cloud.made_and_destroyed();
        if destroyed.len() == 3 {
            break destroyed;
        }
        assert!(started.elapsed() < ROUND_MAX, "only {destroyed:?} were destroyed");
        std::thread::sleep(LOOK_EVERY);
    };
    assert!(gone.iter().all(|(_, handle)| handle.ends_with("-again")), "{gone:?}");
    let (made, _) = round.cloud.made_and_destroyed();
    assert_eq!(made.len(), 3, "no more was bought for it");
    round.servers.remove(0).kill();
}
