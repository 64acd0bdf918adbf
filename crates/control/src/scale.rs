//! The scale loop: who leads looks at the fleet and at what waits, plans, writes records, and has machines made and
//! destroyed. Planning is `engine`'s, the rules are the ledger's, making machines is `pools`'. All servers run it; one
//! leads. What a dead leader had begun is found in the records by the next one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use volley_engine::{FleetView, ScalePlan, plan_scale};
use volley_ledger::{
    Answer, JITTER_MAX, LeadScaling, NewMachine, NoteMachines, Provision, ProvisionRefusal, Query, Retire, ScaleRefusal,
};
use volley_model::{Pool, ScaleLead, ScaleState, WorkerId};
use volley_pools::Provisioners;
use volley_store::{StoreError, StoreExt};

use crate::{Control, counted};

mod calls;

use calls::{Answered, Calls};

/// Most fleet changes of one read.
const CHANGES_MAX: u32 = 10_000;
/// Most records of one store call.
const RECORDS_MAX: usize = 1_000;
/// Answers of provisioners that wait to be noted.
const ANSWERS_MAX: usize = 1_000;
/// Between two looks at the least: turns that find no room come faster, and must not be slowed.
const LOOK_GAP: Duration = Duration::from_millis(100);
/// Most reads of state and fleet until both are of one instant: commits of several servers come every few milliseconds,
/// a read takes less than one.
const READS_MAX: u32 = 16;
/// Longest part of a pool's name in a machine's: the rest is random.
const NAME_PART_MAX: usize = 40;

/// The settings of the scale loop.
#[derive(Debug, Clone)]
pub struct ScaleOptions {
    /// Who makes machines.
    pub provisioners: Provisioners,
    /// How often it looks at the fleet, beside when something is blocked.
    pub interval: Duration,
    /// How often each pool's provisioner is asked for its machines, to find those that nobody knows.
    pub list_interval: Duration,
    /// Most calls to one pool's provisioner at a time.
    pub calls_max: usize,
}

impl ScaleOptions {
    /// Looks every second, lists every half a minute, eight calls at a time.
    #[must_use]
    pub fn new(provisioners: Provisioners) -> Self {
        let (interval, list_interval) = (Duration::from_secs(1), Duration::from_secs(30));
        Self { provisioners, interval, list_interval, calls_max: 8 }
    }
}

impl Control {
    pub(crate) async fn scale_loop(self: Arc<Self>, options: ScaleOptions) {
        let (sender, mut answers) = mpsc::channel(ANSWERS_MAX);
        let mut calls = Calls::new(options.clone(), self.options.metrics.scale.clone(), sender);
        let mut ticks = tokio::time::interval(options.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Vec::new();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.scale.notified() => {}
                _ = answers.recv_many(&mut heard, RECORDS_MAX) => {}
            }
            if let Err(error) = self.scale_round(&mut calls, &mut heard).await {
                tracing::warn!(%error, "a look at the fleet's size was broken off");
            }
            tokio::time::sleep(LOOK_GAP).await;
        }
    }

    /// One look. Nothing is lost when it breaks off: what was not noted is found out again.
    async fn scale_round(&self, calls: &mut Calls, heard: &mut Vec<Answered>) -> Result<(), StoreError> {
        let elastic = {
            let mut view = self.observer.lock().await;
            self.refresh(&mut view).await?;
            view.pools().any(|pool| pool.elastic.is_some())
        };
        if !elastic && heard.is_empty() {
            return Ok(());
        }
        let Ok(lead) = self.store.call(LeadScaling { session: self.session() }).await? else {
            // Another one leads, and finds out what was begun here.
            heard.clear();
            calls.forget();
            return Ok(());
        };
        let started = std::time::Instant::now();
        self.note(lead, calls, heard).await?;
        // Only what is read after the lead was taken is sure to have all that was bought before.
        let (plan, state, pools) = self.plan_now().await?;
        self.retire(lead, &plan).await?;
        let bought = self.buy(lead, &plan, &pools).await?;
        let state = if bought || !plan.retirements.is_empty() { self.scale_state().await? } else { state };
        calls.begin(&state, &pools);
        self.options.metrics.scale.looks.observe(["all"], started.elapsed());
        Ok(())
    }

    /// Brings a view up to date.
    pub(crate) async fn refresh(&self, view: &mut FleetView) -> Result<(), StoreError> {
        loop {
            let query = Query::Fleet { known: view.version(), max: CHANGES_MAX };
            let Answer::Fleet(changes) = self.store.read(query).await? else { return Err(StoreError::Closed) };
            view.apply(&changes);
            if !changes.more {
                return Ok(());
            }
        }
    }

    pub(crate) async fn scale_state(&self) -> Result<ScaleState, StoreError> {
        match self.store.read(Query::Scale).await? {
            Answer::Scale(state) => Ok(*state),
            _ => Err(StoreError::Closed),
        }
    }

    /// The state and the view of one instant; or not, when the fleet changed between each two reads of many. Between
    /// two instants a container may be placed and a machine register: it would be counted as waiting beside a worker
    /// without room, and one machine too many be bought.
    pub(crate) async fn scale_state_of(&self, view: &mut FleetView) -> Result<(ScaleState, bool), StoreError> {
        for _ in 1..READS_MAX {
            let state = self.scale_state().await?;
            if state.at == view.version() {
                return Ok((state, true));
            }
            self.refresh(view).await?;
        }
        let state = self.scale_state().await?;
        let of_one_instant = state.at == view.version();
        Ok((state, of_one_instant))
    }

    async fn plan_now(&self) -> Result<(ScalePlan, ScaleState, Vec<Pool>), StoreError> {
        let mut view = self.observer.lock().await;
        let (state, of_one_instant) = self.scale_state_of(&mut view).await?;
        if !of_one_instant {
            // What was placed in between would be bought for. There is another look soon.
            tracing::debug!("the fleet changes too fast to be looked at: nothing is bought or given up");
            return Ok((ScalePlan::default(), state, view.pools().cloned().collect()));
        }
        let started = std::time::Instant::now();
        let plan = plan_scale(&view, &state);
        self.options.metrics.scale.looks.observe(["plan"], started.elapsed());
        Ok((plan, state, view.pools().cloned().collect()))
    }

    fn jitter(&self) -> u16 {
        (self.random() % u64::from(JITTER_MAX + 1)) as u16
    }

    /// Notes what provisioners answered.
    async fn note(&self, lead: ScaleLead, calls: &mut Calls, heard: &mut Vec<Answered>) -> Result<(), StoreError> {
        let notes = calls.hear(heard.drain(..));
        if notes.is_empty() {
            return Ok(());
        }
        notes.iter().for_each(|(_, said)| counted::on_machine(&self.options.metrics.scale, said));
        let op = NoteMachines { session: lead.session, term: lead.term, notes, jitter: self.jitter() };
        log_refusal(self.store.call(op).await?);
        Ok(())
    }

    async fn retire(&self, lead: ScaleLead, plan: &ScalePlan) -> Result<(), StoreError> {
        for machines in plan.retirements.chunks(RECORDS_MAX) {
            for (worker, why) in machines {
                self.options.metrics.scale.given_up.add_one([counted::given_up(*why)]);
                tracing::info!(%worker, %why, "a machine is given up");
            }
            let (machines, jitter) = (machines.to_vec(), self.jitter());
            log_refusal(self.store.call(Retire { session: lead.session, term: lead.term, machines, jitter }).await?);
        }
        Ok(())
    }

    /// Writes the records of what is to be bought. Whether any was.
    async fn buy(&self, lead: ScaleLead, plan: &ScalePlan, pools: &[Pool]) -> Result<bool, StoreError> {
        let mut machines = Vec::new();
        for purchase in &plan.purchases {
            let Some(pool) = pools.iter().find(|pool| pool.name == purchase.pool) else { continue };
            tracing::info!(pool = %pool.name, count = purchase.count, "machines are bought");
            for _ in 0..purchase.count {
                let (worker, pool_version) = (self.machine_id(pool), pool.version);
                machines.push(NewMachine { worker, pool: pool.name.clone(), pool_version });
            }
        }
        for machines in machines.chunks(RECORDS_MAX) {
            let op = Provision { session: lead.session, term: lead.term, machines: machines.to_vec() };
            let verdicts = log_refusal(self.store.call(op).await?).unwrap_or_default();
            counted::on_purchase(&self.options.metrics.scale, &verdicts);
            let refused = verdicts.iter().filter_map(|verdict| verdict.err());
            // It is planned again in the next look, by what is true then.
            refused.for_each(|refusal: ProvisionRefusal| tracing::debug!(%refusal, "a purchase was refused"));
        }
        Ok(!machines.is_empty())
    }

    /// A new record's id: the name of the worker to come.
    fn machine_id(&self, pool: &Pool) -> WorkerId {
        let part: String = pool.name.as_str().chars().take(NAME_PART_MAX).collect();
        let random = volley_model::GroupId(self.random()).to_string();
        WorkerId::new(&format!("{part}-{random}")).expect("a pool's name and base 32 make a good name")
    }
}

/// Who does not lead any more stops: the next leader goes on.
fn log_refusal<T>(reply: Result<T, ScaleRefusal>) -> Option<T> {
    reply.inspect_err(|refusal| tracing::info!(%refusal, "a call about machines was refused")).ok()
}
