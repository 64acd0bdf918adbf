//! Pool records.

use volley_model::{Pool, PoolName};

use crate::effects::Effects;
use crate::feed::FeedKey;
use crate::ledger::Ledger;
use crate::{Change, EventKind, RemovePoolRefusal};

impl Ledger {
    pub(crate) fn apply_pool(&mut self, pool: Pool, out: &mut Effects) {
        if self.pools.get(&pool.name) == Some(&pool) {
            return;
        }
        out.change(Change::PutPool(pool.clone()));
        out.event(&mut self.counters, EventKind::Pool { pool: pool.name.clone(), removed: false });
        self.growth = self.touch(FeedKey::Pool(pool.name.clone()), false);
        self.pools.insert(pool.name.clone(), pool);
    }

    pub(crate) fn remove_pool(&mut self, name: &PoolName, out: &mut Effects) -> Result<(), RemovePoolRefusal> {
        if !self.pools.contains_key(name) {
            return Err(RemovePoolRefusal::NotFound);
        }
        let workers = self.workers.values().filter(|w| w.worker.pool == *name).count() as u32;
        if workers > 0 {
            return Err(RemovePoolRefusal::HasWorkers { workers });
        }
        self.pools.remove(name);
        self.touch(FeedKey::Pool(name.clone()), true);
        out.change(Change::RemovePool(name.clone()));
        out.event(&mut self.counters, EventKind::Pool { pool: name.clone(), removed: true });
        Ok(())
    }
}
