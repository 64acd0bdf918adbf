//! Why a container was placed where it is: by which of its own wishes, and by which rule of the pool. The fleet as it
//! was is not kept, so other workers are not told of. Pure.

use volley_model::{GpuGrant, GpuKinds, Pool, PoolSelector, Spec, Strategy, Worker};

/// The rules that the worker meets, one line each, in the order in which the planner goes by them.
pub(crate) fn why_there(spec: &Spec, worker: &Worker, pool: Option<&Pool>, gpus: &[GpuGrant]) -> Vec<String> {
    let mut words = Vec::new();
    match &spec.pool {
        PoolSelector::Required(name) => words.push(format!("it asks for pool {name}")),
        PoolSelector::Preferred(name) if *name == worker.pool => words.push(format!("it prefers pool {name}")),
        PoolSelector::Preferred(name) => {
            words.push(format!("pool {name}, which it prefers, had no room; pool {} had", worker.pool));
        }
        PoolSelector::Any => words.push(format!(
            "pool {} was the first by priority{} that had room",
            worker.pool,
            pool.map(|pool| format!(" ({})", pool.priority)).unwrap_or_default()
        )),
    }
    let labels: Vec<String> = spec.require_labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if !labels.is_empty() {
        words.push(format!("the worker has {}, which it asks for", labels.join(", ")));
    }
    words.extend(gpu_words(spec, worker, gpus));
    if let Some(key) = &spec.affinity {
        words.push(format!("workers that ran '{key}' lately come first, where they have room"));
    }
    words.extend(pool.map(|pool| match pool.strategy {
        Strategy::Pack => format!("pool {} packs: the fullest worker with room for it", pool.name),
        Strategy::Spread => format!("pool {} spreads: the emptiest worker with room for it", pool.name),
    }));
    words
}

fn gpu_words(spec: &Spec, worker: &Worker, gpus: &[GpuGrant]) -> Option<String> {
    let asked = spec.resources.gpu.as_ref()?;
    let device = gpus.first()?;
    let kind = worker.capacity.gpus.get(usize::from(device.device))?;
    match &asked.kinds {
        GpuKinds::Any => Some(format!("it takes any kind of GPU; it has {kind}")),
        GpuKinds::Ordered(kinds) => {
            let place = kinds.iter().position(|asked| asked == kind)? + 1;
            Some(format!("GPU kind {kind} is choice {place} of the {} that it asks for", kinds.len()))
        }
    }
}
