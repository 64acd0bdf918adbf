//! Solves a scale plan's small model: several packings, the best of them, and for small problems the optimum.

use super::blend::blend;
use super::exact;
use super::pack::{Choice, Packing};
use super::problem::{Problem, Solution};

/// In which order shapes are packed.
#[derive(Clone, Copy)]
enum Order {
    /// As they wait.
    Score,
    /// The largest first, so that small ones fill the gaps.
    Size,
    /// By the number of cores, or of bytes.
    Cpu,
    Memory,
}

const ORDERS: [Order; 4] = [Order::Score, Order::Size, Order::Cpu, Order::Memory];
const CHOICES: [Choice; 4] = [Choice::CostEach, Choice::CostAll, Choice::Largest, Choice::Cheapest];

/// Shapes times offers above which fewer packings are made: each costs up to a millisecond then, and with so many shapes
/// the mixes of machines (`by_machine`), one for each order, leave other choices nothing to find.
const ALL_TRIED_MAX: usize = 256;

/// What is tried.
fn tried(problem: &Problem) -> (&'static [Order], &'static [Choice]) {
    if problem.shapes.len() * problem.offers.len() <= ALL_TRIED_MAX {
        return (&ORDERS, &CHOICES);
    }
    (&ORDERS, &[Choice::CostEach])
}

/// Solves it.
pub(crate) fn solve(problem: &Problem) -> Solution {
    let mut candidates = Vec::new();
    let (orders, choices) = tried(problem);
    for order in orders {
        let shapes = ordered(problem, *order);
        for choice in choices {
            candidates.push(problem.solution(by_shape(problem, &shapes, *choice).groups));
        }
        candidates.push(problem.solution(by_machine(problem, &shapes).groups));
    }
    let serves_all = |solution: &Solution| solution.served.iter().zip(&problem.runs).all(|(s, (_, count))| s == count);
    if !candidates.iter().any(|(_, solution)| serves_all(solution)) {
        // Not all can be served: then the best scores are, one by one as they wait.
        candidates.push(problem.solution(by_shape(problem, &problem.runs, Choice::CostEach).groups));
        candidates.push(problem.solution(by_shape(problem, &problem.runs, Choice::Largest).groups));
    }
    let (value, solution) = candidates.into_iter().min_by(|a, b| a.0.cmp(&b.0)).expect("there is a candidate");
    if !exact::is_small(problem) {
        return solution;
    }
    match exact::improve(problem, &value, &solution) {
        Some((better, improved)) if better < value => improved,
        _ => solution,
    }
}

/// Shape after shape, each onto what is there, then onto what is bought for it.
fn by_shape<'a>(problem: &'a Problem, runs: &[(usize, u64)], choice: Choice) -> Packing<'a> {
    let mut packing = Packing::new(problem, problem.groups());
    for (shape, count) in runs {
        let left = packing.place(*shape, *count);
        packing.buy(*shape, left, choice);
    }
    packing.downsize();
    packing
}

/// What is there first, then machine after machine, each with a mix of shapes.
fn by_machine<'a>(problem: &'a Problem, runs: &[(usize, u64)]) -> Packing<'a> {
    let mut packing = Packing::new(problem, problem.groups());
    let mut left = vec![0; problem.shapes.len()];
    let mut order: Vec<usize> = Vec::new();
    for (shape, count) in runs {
        left[*shape] += packing.place(*shape, *count);
        if !order.contains(shape) {
            order.push(*shape);
        }
    }
    blend(problem, &mut packing, &mut left, &order);
    packing.downsize();
    packing
}

/// Shapes and how many of each wait, in the order in which they are packed.
fn ordered(problem: &Problem, order: Order) -> Vec<(usize, u64)> {
    let waiting = problem.waiting();
    let mut shapes: Vec<usize> = Vec::with_capacity(waiting.len());
    let mut seen = vec![false; waiting.len()];
    for (shape, _) in &problem.runs {
        if !std::mem::replace(&mut seen[*shape], true) {
            shapes.push(*shape);
        }
    }
    // Stable: among equals the better score goes first.
    shapes.sort_by_key(|shape| {
        let resources = &problem.shapes[*shape];
        let (gpu, larger, sum) = crate::plan::size(resources);
        std::cmp::Reverse(match order {
            Order::Score => (0, 0, 0),
            Order::Size => (gpu, larger, sum),
            Order::Cpu => (gpu, resources.cpu.0, resources.memory.0),
            Order::Memory => (gpu, resources.memory.0, resources.cpu.0),
        })
    });
    shapes.into_iter().map(|shape| (shape, waiting[shape])).collect()
}
