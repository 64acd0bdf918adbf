//! A real server with the backlog: how long people wait for an answer, and what bursts lose while it is scaling.

use http::Method;
use serde_json::Value;
use volley_wire::pool_json::pool_to;

use super::{ScaleBench, ScaleError, ScalePrograms, ScaleRun, backlog};
use crate::burst::BurstError;
use crate::burst::scaling::{Scaling, body};

/// Containers that a dry run asks about.
const ASKED: u32 = 100;

pub(super) async fn runs(
    options: &ScaleBench,
    programs: &dyn ScalePrograms,
    progress: &mut impl FnMut(&str),
) -> Result<Vec<ScaleRun>, ScaleError> {
    let failed = |problem| BurstError::Directory { dir: options.dir.clone(), problem };
    progress("a server with a backlog");
    let (dir, other_dir) =
        (tempfile::tempdir_in(&options.dir).map_err(failed)?, tempfile::tempdir_in(&options.dir).map_err(failed)?);
    let backlog: Vec<Value> = (0..options.shapes)
        .map(|shape| body(&backlog::spec(shape), backlog::part(options.containers, options.shapes, shape)))
        .collect();
    let pools = |elastic: bool| (0..options.pools).map(|n| pool_to(&backlog::pool(n, elastic))).collect::<Vec<Value>>();
    let mut scaling = Scaling::start((&pools(true), &backlog), true, dir.path(), programs).await?;
    let mut runs = asked(options, programs, &scaling, progress).await?;
    progress("another server with the same backlog, which does not scale");
    let mut still = Scaling::start((&pools(false), &backlog), false, other_dir.path(), programs).await?;
    runs.extend(bursts(options, &mut scaling, &mut still, progress).await?);
    scaling.end(options.containers.into()).await?;
    still.end(options.containers.into()).await?;
    Ok(runs)
}

/// `explain` of a container of each shape in turn, and `plan`.
async fn asked(
    options: &ScaleBench,
    programs: &dyn ScalePrograms,
    scaling: &Scaling,
    progress: &mut impl FnMut(&str),
) -> Result<Vec<ScaleRun>, ScaleError> {
    let url = scaling.url();
    let planned = body(&backlog::spec(3), ASKED);
    let (mut explain, mut plan) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    // The first round warms the server.
    for number in 0..=options.repetitions.max(1) {
        progress(&format!("explain and plan, {number} of {}", options.repetitions));
        let id = format!("{}-0", scaling.groups[number % scaling.groups.len()]);
        let path = format!("/v1/containers/{id}/explain");
        let times = [
            scaling.request_ms(Method::GET, &path, &Value::Null).await?,
            command_ms(programs, &url, &["explain", &id])?,
            scaling.request_ms(Method::POST, "/v1/plan", &planned).await?,
            command_ms(programs, &url, &plan_words(&ASKED.to_string()))?,
        ];
        if number > 0 {
            explain.0.push(times[0]);
            explain.1.push(times[1]);
            plan.0.push(times[2]);
            plan.1.push(times[3]);
        }
    }
    let among = format!("among {} waiting", options.containers);
    let run = |figure: &str, times: &[f64]| ScaleRun::of(&format!("{figure} {among}"), "ms", 50.0, times);
    Ok(vec![
        run("volley explain, the request,", &explain.0),
        run("volley explain, the command,", &explain.1),
        run(&format!("volley plan -n {ASKED}, the request,"), &plan.0),
        run(&format!("volley plan -n {ASKED}, the command,"), &plan.1),
    ])
}

fn plan_words(count: &str) -> Vec<&str> {
    vec!["plan", "-n", count, "--cpu", "1", "--memory", "1Gi", "--require", "bench=backlog", "--", "true"]
}

/// From the start of a command's process to its end.
fn command_ms(programs: &dyn ScalePrograms, url: &str, words: &[&str]) -> Result<f64, ScaleError> {
    let wrong = |problem: String| ScaleError::Command { command: words.join(" "), problem };
    let mut command = programs.command(url, words);
    let begin = std::time::Instant::now();
    let ran = command.output().map_err(|error| wrong(error.to_string()))?;
    let time = begin.elapsed().as_secs_f64() * 1e3;
    // 2: something has nothing in sight, which is an answer too.
    if !matches!(ran.status.code(), Some(0 | 2)) || ran.stdout.is_empty() {
        return Err(wrong(String::from_utf8_lossy(&ran.stderr).trim().to_owned()));
    }
    Ok(time)
}

/// Pairs of bursts, on the one server and on the other, the first of each pair in turns.
async fn bursts(
    options: &ScaleBench,
    scaling: &mut Scaling,
    still: &mut Scaling,
    progress: &mut impl FnMut(&str),
) -> Result<Vec<ScaleRun>, ScaleError> {
    let (mut with, mut without, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    // The first pair warms them.
    for number in 0..=options.pairs.max(1) {
        progress(&format!("pairs of bursts, {number} of {}", options.pairs));
        let pair = if number % 2 == 0 {
            let first = scaling.burst_ms().await?;
            (first, still.burst_ms().await?)
        } else {
            let first = still.burst_ms().await?;
            (scaling.burst_ms().await?, first)
        };
        if number > 0 {
            with.push(pair.0);
            without.push(pair.1);
            ratios.push(pair.0 * 100.0 / pair.1);
        }
    }
    Ok(vec![
        ScaleRun::of("a burst of 100 beside the backlog, scaling", "ms", 10.0, &with),
        ScaleRun::of("the same, not scaling", "ms", 10.0, &without),
        ScaleRun::of("the first over the second, each pair", "%", 105.0, &ratios),
    ])
}
