//! Packing machine by machine: each is filled with the mix of shapes that uses all of its resources evenly, and the
//! same mix is bought as often as it goes. Finds what shape by shape does not: work that is large in one resource
//! beside work that is large in another.

use volley_model::{Capacity, Free, GPU_WHOLE, Resources};

use super::pack::Packing;
use super::problem::{Group, Problem};

/// Offers that are filled to find the best for the next machine: the best ranks first.
const OFFERS_TRIED_MAX: usize = 6;
/// Containers that one mix takes one by one; what is left goes in by shape.
const MIX_STEPS_MAX: usize = 256;

/// A machine filled for trial.
struct Mix {
    offer: usize,
    free: Free,
    content: Vec<(usize, u64)>,
}

/// Buys for what is left of each shape.
pub(super) fn blend(problem: &Problem, packing: &mut Packing<'_>, left: &mut [u64], order: &[usize]) {
    let of_offer = |offer: &super::problem::Offer| {
        let capacity = &problem.kinds[offer.kind].capacity;
        problem.shapes.iter().map(|request| shares(capacity, needs_whole(request))).collect()
    };
    let shares: Vec<Vec<[u64; 3]>> = problem.offers.iter().map(of_offer).collect();
    while let Some(first) = order.iter().copied().find(|shape| left[*shape] > 0) {
        let Some(mix) = best_mix(problem, &shares, packing, left, first) else {
            left[first] = 0;
            continue;
        };
        let often = mix.content.iter().map(|(shape, count)| left[*shape] / count).min().unwrap_or(1);
        let often = often.clamp(1, packing.left[mix.offer]);
        packing.left[mix.offer] -= often;
        for (shape, count) in &mix.content {
            left[*shape] -= count * often;
        }
        let kind = problem.offers[mix.offer].kind;
        let before = problem.kinds[kind].capacity.all_free();
        let (offer, content) = (Some(mix.offer), mix.content);
        packing.groups.push(Group { kind, offer, count: often, free: mix.free, before, content });
    }
}

/// The offer of the best rank whose mix costs least for what it uses of a machine of its kind.
fn best_mix(
    problem: &Problem,
    shares: &[Vec<[u64; 3]>],
    packing: &Packing<'_>,
    left: &[u64],
    first: usize,
) -> Option<Mix> {
    let offers = problem.offers.iter().enumerate();
    let open = offers.filter(|(o, offer)| packing.left[*o] > 0 && problem.serves(first, offer.kind));
    let mut open: Vec<(usize, usize, u64)> = open.map(|(o, offer)| (offer.rank, o, offer.cost)).collect();
    let best_rank = open.iter().map(|(rank, ..)| *rank).min()?;
    open.retain(|(rank, ..)| *rank == best_rank);
    open.sort_by_key(|(_, o, cost)| (*cost, *o));
    open.truncate(OFFERS_TRIED_MAX);
    let total = need_in_all(problem, left);
    let mixes = open.into_iter().map(|(_, offer, cost)| {
        let mix = fill(problem, &shares[offer], offer, left, first);
        let worth: u128 = mix.content.iter().map(|(s, n)| weight(&problem.shapes[*s], &total) * u128::from(*n)).sum();
        (u128::from(cost.max(1)) * SCALE / worth.max(1), mix)
    });
    mixes.min_by_key(|(each, mix)| (*each, mix.offer)).map(|(_, mix)| mix)
}

/// Fixed point for shares and prices.
const SCALE: u128 = 1 << 40;

/// Everything that is left, in one sum for each resource.
fn need_in_all(problem: &Problem, left: &[u64]) -> [u128; 3] {
    let mut total = [1_u128; 3];
    for (resources, count) in problem.shapes.iter().zip(left) {
        for (sum, need) in total.iter_mut().zip(needs(resources)) {
            *sum += need * u128::from(*count);
        }
    }
    total
}

fn needs(resources: &Resources) -> [u128; 3] {
    needs_whole(resources).map(u128::from)
}

fn needs_whole(resources: &Resources) -> [u64; 3] {
    let gpu = resources.gpu.as_ref().map_or(0, |gpu| u64::from(gpu.count) * gpu.milli.0);
    [resources.cpu.0, resources.memory.0, gpu]
}

/// What a container is of all that is left: the sum of its shares.
fn weight(resources: &Resources, total: &[u128; 3]) -> u128 {
    needs(resources).iter().zip(total).map(|(need, total)| need * SCALE / total).sum::<u128>().max(1)
}

/// Fills one machine: the first shape once, then whatever leaves what is free most even.
fn fill(problem: &Problem, shares: &[[u64; 3]], offer: usize, left: &[u64], first: usize) -> Mix {
    let kind = problem.offers[offer].kind;
    let capacity = &problem.kinds[kind].capacity;
    let mut mix = Mix { offer, free: capacity.all_free(), content: Vec::new() };
    let mut open: Vec<usize> = (0..left.len()).filter(|s| left[*s] > 0 && problem.serves(*s, kind)).collect();
    let mut next = Some(first);
    for _ in 0..MIX_STEPS_MAX {
        let Some(shape) = next else { break };
        if !mix.put(capacity, &problem.shapes[shape], shape, 1) || mix.count(shape) >= left[shape] {
            open.retain(|s| *s != shape);
        }
        let free = &mix.free;
        open.retain(|s| fits(free, &problem.shapes[*s]));
        let gpus = free.gpus.iter().map(|milli| milli.0).sum();
        let free = self::shares(capacity, [free.cpu.0, free.memory.0, gpus]);
        next = open.iter().copied().max_by_key(|s| (evenness(&free, &shares[*s]), usize::MAX - *s));
    }
    for shape in open {
        let count = left[shape] - mix.count(shape);
        mix.put(capacity, &problem.shapes[shape], shape, count);
    }
    mix
}

impl Mix {
    fn count(&self, shape: usize) -> u64 {
        self.content.iter().find(|(s, _)| *s == shape).map_or(0, |(_, count)| *count)
    }

    /// Whether any of it fitted.
    fn put(&mut self, capacity: &Capacity, request: &Resources, shape: usize, count: u64) -> bool {
        let taken = capacity.reserve_times(&mut self.free, request, count);
        if taken == 0 {
            return false;
        }
        match self.content.iter_mut().find(|(s, _)| *s == shape) {
            Some((_, old)) => *old += taken,
            None => self.content.push((shape, taken)),
        }
        true
    }
}

/// But for devices, which only trying tells.
fn fits(free: &Free, request: &Resources) -> bool {
    let misfit = free.misfit(request);
    misfit.is_none()
}

/// How well a request goes with what is free: large where much is free. A resource's share of the capacity times the
/// share that is free, summed.
fn evenness(free: &[u64; 3], need: &[u64; 3]) -> u64 {
    free.iter().zip(need).map(|(free, need)| free * need).sum()
}

/// Parts of a machine's capacity, in millionths (of 2^20): small enough that products of two of them can be summed.
fn shares(capacity: &Capacity, amounts: [u64; 3]) -> [u64; 3] {
    let all = [capacity.cpu.0, capacity.memory.0, capacity.gpus.len() as u64 * GPU_WHOLE.0];
    let share = |(amount, all): (u64, u64)| (u128::from(amount) << 20).checked_div(all.into()).unwrap_or(0);
    // More than a machine has never fits: it stands for the most that does.
    let share = |of| share(of).min(1 << 20) as u64;
    let [cpu, memory, gpus] = amounts;
    [share((cpu, all[0])), share((memory, all[1])), share((gpus, all[2]))]
}
