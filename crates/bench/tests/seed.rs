//! `bench seed`: what comes out does not depend on how fast the machine is.

use volley_bench::seed::{Batching, Taken};
use volley_bench::{Report, Runs, SeedBench, SeedRun, Submit, seed};
use volley_control::Profile;

async fn runs(taken: Taken) -> Vec<SeedRun> {
    let dir = tempfile::tempdir().unwrap();
    let options = SeedBench {
        batchings: vec![Batching::Profile(Profile::Auto), Batching::OneByOne],
        taken: vec![taken],
        repetitions: 2,
        ..SeedBench::in_dir(dir.path().to_owned())
    };
    let report = seed(&options, |_| {}).await.unwrap();
    assert_eq!(Report::from_json(&report.to_json()).unwrap(), report);
    match report.runs {
        Runs::Seed(runs) => runs,
        other => panic!("another bench: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_that_fits_uses_every_worker_and_buys_none() {
    let runs = runs(Taken::None).await;
    assert_eq!(runs.len(), 4);
    for run in &runs {
        assert_eq!((run.placed, run.waiting, run.workers_used, run.workers_bought), (100, 0, 10, 0), "{run:?}");
    }
    let one_group = runs.iter().find(|run| run.case.max_size > 1 && run.case.submit == Submit::Batch).unwrap();
    assert_eq!((one_group.batches, one_group.batch_largest, one_group.commits), (1, 100, 1), "{one_group:?}");
    for run in runs.iter().filter(|run| run.case.max_size == 1) {
        assert_eq!((run.batches, run.batch_largest), (100, 1), "{run:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_half_the_workers_taken_half_waits_and_five_would_be_bought() {
    for run in runs(Taken::Half).await {
        assert_eq!((run.placed, run.waiting, run.workers_used, run.workers_bought), (50, 50, 5, 5), "{run:?}");
    }
}
