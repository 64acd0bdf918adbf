//! Pool records.

use volley_model::{Pool, PoolName, PoolVersion, Timestamp};

use crate::effects::Effects;
use crate::feed::FeedKey;
use crate::ledger::Ledger;
use crate::{ApplyPool, ApplyPoolRefusal, Change, EventKind, RemovePoolRefusal};

impl Ledger {
    pub(crate) fn apply_pool(&mut self, op: ApplyPool, out: &mut Effects) -> Result<PoolVersion, ApplyPoolRefusal> {
        let known = self.pools.get(&op.pool.name);
        let version = known.map_or(PoolVersion(0), |pool| pool.version);
        let same = known.is_some_and(|known| Pool { version, ..op.pool.clone() } == *known);
        if !same && op.expected.is_some_and(|expected| expected != version) {
            return Err(ApplyPoolRefusal::Changed { version });
        }
        let maker = |pool: &Pool| pool.elastic.as_ref().map(|elastic| std::mem::discriminant(&elastic.provisioner));
        let (machines, _) = self.machines_of(&op.pool.name);
        if machines > 0 && known.and_then(maker) != maker(&op.pool) {
            return Err(ApplyPoolRefusal::HasMachines { machines });
        }
        let name = op.pool.name.clone();
        // A definition that changed may hold what the old one did not.
        let machine = |pool: &Pool| pool.elastic.as_ref().map(|elastic| elastic.machine.clone());
        let other_machine = known.and_then(machine) != machine(&op.pool);
        if let Some(standing) = self.standings.get_mut(&name) {
            if op.renew {
                (standing.failures, standing.quarantined, standing.retry_at) = (0, false, Timestamp(0));
                standing.last_failure = None;
            }
            if op.renew || other_machine {
                standing.offered = None;
                out.standings.insert(name.clone());
            }
        }
        if same { Ok(version) } else { Ok(self.put_pool(op.pool, out)) }
    }

    /// Writes a pool's record under a new version.
    pub(crate) fn put_pool(&mut self, mut pool: Pool, out: &mut Effects) -> PoolVersion {
        self.growth = self.touch(FeedKey::Pool(pool.name.clone()), false);
        pool.version = PoolVersion(self.growth.0);
        out.change(Change::PutPool(pool.clone()));
        out.event(&mut self.counters, EventKind::Pool { pool: pool.name.clone(), removed: false });
        let version = pool.version;
        self.pools.insert(pool.name.clone(), pool);
        version
    }

    pub(crate) fn remove_pool(&mut self, name: &PoolName, out: &mut Effects) -> Result<(), RemovePoolRefusal> {
        if !self.pools.contains_key(name) {
            return Err(RemovePoolRefusal::NotFound);
        }
        let workers = self.workers.values().filter(|w| w.worker.pool == *name).count() as u32;
        if workers > 0 {
            return Err(RemovePoolRefusal::HasWorkers { workers });
        }
        let (machines, _) = self.machines_of(name);
        if machines > 0 {
            return Err(RemovePoolRefusal::HasMachines { machines });
        }
        self.pools.remove(name);
        self.standings.remove(name);
        // As when a worker goes: what only its machines could serve is looked at again.
        self.growth = self.touch(FeedKey::Pool(name.clone()), true);
        out.change(Change::RemovePool(name.clone()));
        out.event(&mut self.counters, EventKind::Pool { pool: name.clone(), removed: true });
        Ok(())
    }
}
