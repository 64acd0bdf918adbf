//! How a picture of the cell looks as text: a pure function, no line longer than the screen is wide, no more lines than
//! it has.

use serde_json::Value;
use volley_model::{Millis, Timestamp};

use super::activity::{Activity, Burst, WINDOW};
use crate::output::{printable, rows, text};
use crate::words;

/// How large a screen is, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub columns: usize,
    pub rows: usize,
}

/// What is shown.
#[derive(Debug)]
pub struct Picture {
    /// Where the server answers.
    pub server: String,
    /// As `/v1/overview` has it.
    pub overview: Value,
    /// From the event record.
    pub activity: Activity,
    /// Why what is shown may be old.
    pub trouble: Option<String>,
}

/// Lines that are always there: titles, headers, counts, blanks.
const FIXED_LINES: usize = 13;
/// No screen is taken to be narrower: a table needs its columns.
const COLUMNS_MIN: usize = 40;

/// The picture as text.
pub fn frame(picture: &Picture, size: Size) -> String {
    let columns = size.columns.max(COLUMNS_MIN);
    let mut lines = head(picture, columns);
    let left = size.rows.saturating_sub(FIXED_LINES);
    let pools: Vec<&Value> = rows(&picture.overview, "pools").collect();
    let bursts: Vec<&Burst> = picture.activity.bursts().collect();
    // What waits has what the others leave: two lines each.
    let pools_shown = pools.len().min((left / 3).max(2));
    let bursts_shown = bursts.len().min((left / 4).max(1));
    let shapes_shown = left.saturating_sub(pools_shown + bursts_shown) / 2;
    lines.extend(fleet(&pools, pools_shown));
    lines.push(String::new());
    lines.extend(backlog(&picture.overview, shapes_shown));
    lines.push(String::new());
    lines.extend(last_bursts(&bursts[..bursts_shown], now(picture)));
    let cut = |line: String| line.chars().take(columns).collect::<String>().trim_end().to_owned() + "\n";
    lines.into_iter().take(size.rows).map(cut).collect()
}

fn now(picture: &Picture) -> Timestamp {
    Timestamp(picture.overview["now_ms"].as_u64().unwrap_or(0))
}

fn number(of: &Value) -> u64 {
    of.as_u64().unwrap_or(0)
}

/// The server, the containers by state, and the rates.
fn head(picture: &Picture, columns: usize) -> Vec<String> {
    let overview = &picture.overview;
    let moment = words::moment(now(picture));
    let servers = words::count(number(&overview["sessions"]), "server", "servers");
    let right = format!("{servers}  {}  q quits", moment.split('.').next().unwrap_or_default());
    let left = format!("volley {}", printable(&picture.server));
    let gap = columns.saturating_sub(left.chars().count() + right.chars().count()).max(1);
    let of = |state: &str| number(&overview["containers"][state]);
    let placing = of("claimed") + of("assigned") + of("starting");
    let oldest = overview["oldest_wait_ms"].as_u64().map_or("-".to_owned(), |ms| words::span(Millis(ms)));
    let columns_of = |words: [&str; 7]| {
        let [waiting, blocked, placing, running, stopping, finished, oldest] = words;
        format!("{waiting:>9}{blocked:>11}{placing:>10}{running:>10}{stopping:>11}{finished:>12}{oldest:>14}")
    };
    let counts = [of("queued"), number(&overview["blocked_containers"]), placing, of("running"), of("stopping")];
    let [waiting, blocked, placing, running, stopping] = counts.map(|count| count.to_string());
    let finished = (of("finished") + number(&overview["pruned"])).to_string();
    let rates = picture.activity.rates(now(picture));
    let rate = |tenths: u64| format!("{}.{}/s", tenths / 10, tenths % 10);
    vec![
        format!("{left}{}{right}", " ".repeat(gap)),
        picture.trouble.clone().unwrap_or_default(),
        columns_of(["WAITING", "BLOCKED", "PLACING", "RUNNING", "STOPPING", "FINISHED", "OLDEST WAIT"]),
        columns_of([&waiting, &blocked, &placing, &running, &stopping, &finished, &oldest]),
        String::new(),
        format!(
            "over {}: submitted {}, placed {}, finished {}",
            words::span(WINDOW),
            rate(rates.submitted),
            rate(rates.placed),
            rate(rates.finished)
        ),
        String::new(),
    ]
}

/// A table of pools.
fn fleet(pools: &[&Value], shown: usize) -> Vec<String> {
    let columns = |words: [&str; 10]| {
        let [pool, ready, other, empty, held, attempts, cpu, memory, slots, gpu] = words;
        format!("{pool:18.18}{ready:>6}{other:>6}{empty:>6}{held:>6}{attempts:>9}{cpu:>7}{memory:>8}{slots:>7}{gpu:>6}")
    };
    let header = ["POOL", "READY", "OTHER", "EMPTY", "HELD", "ATTEMPTS", "CPU", "MEMORY", "SLOTS", "GPUS"];
    let mut lines = vec![columns(header)];
    for pool in &pools[..shown] {
        let workers = pool["workers"].as_object();
        let ready = workers.and_then(|workers| workers.get("ready")).map_or(0, number);
        let all: u64 = workers.into_iter().flat_map(|workers| workers.values()).map(number).sum();
        let taken = |name: &str| {
            let (capacity, free) = (number(&pool["capacity"][name]), number(&pool["free"][name]));
            match capacity {
                0 => "-".to_owned(),
                capacity => format!("{}%", u128::from(capacity.saturating_sub(free)) * 100 / u128::from(capacity)),
            }
        };
        let name = printable(&text(&pool["pool"]));
        let [empty, held, attempts] = ["empty", "holds", "containers"].map(|name| text(&pool[name]));
        let [cpu, memory, slots, gpus] = ["cpu_milli", "memory_bytes", "slots", "gpu_milli"].map(taken);
        let (ready, other) = (ready.to_string(), (all - ready).to_string());
        lines.push(columns([&name, &ready, &other, &empty, &held, &attempts, &cpu, &memory, &slots, &gpus]));
    }
    if shown < pools.len() {
        // In the place of the last one, so that the height is as planned.
        lines.pop();
        lines.push(format!("and {} more", pools.len() + 1 - shown));
    }
    lines
}

/// What waits, by shape, and why.
fn backlog(overview: &Value, shown: usize) -> Vec<String> {
    let mut lines = vec![format!("{:>9}{:>9}  {}", "WAITING", "OLDEST", "SHAPE")];
    let found: Vec<&Value> = rows(overview, "backlog").take(shown).collect();
    for shape in &found {
        let waited = words::span(Millis(number(&shape["waited_ms"])));
        lines.push(format!("{:>9}{waited:>9}  {}", text(&shape["waiting"]), printable(&text(&shape["asks"]))));
        let why = match (shape["blocked"] == true, shape["words"].as_str()) {
            (true, Some(why)) if !why.is_empty() => printable(why),
            (true, _) => "nothing fits".to_owned(),
            (false, _) => "waiting for its turn".to_owned(),
        };
        lines.push(format!("{:18}  {why}", ""));
    }
    let more = number(&overview["shapes"]).saturating_sub(found.len() as u64);
    match (lines.len(), more) {
        (1, 0) => lines.push(format!("{:>9}", "nothing")),
        (_, 0) => {}
        (_, more) => lines[0] += &format!(" ({more} more below)"),
    }
    lines
}

fn last_bursts(bursts: &[&Burst], now: Timestamp) -> Vec<String> {
    let columns = |words: [&str; 7]| {
        let [group, count, placed, finished, failed, ago, took] = words;
        format!("{group:14.14}{count:>10}{placed:>10}{finished:>10}{failed:>10}{ago:>10}{took:>10}")
    };
    let mut lines = vec![columns(["LAST BURSTS", "COUNT", "PLACED", "FINISHED", "FAILED", "AGO", "TOOK"])];
    for burst in bursts {
        let took =
            if burst.finished >= burst.count { words::span(burst.last.since(burst.accepted)) } else { "-".to_owned() };
        let [count, placed, finished, failed] =
            [burst.count, burst.placed, burst.finished, burst.failed].map(|count| count.to_string());
        let ago = words::span(now.since(burst.accepted));
        lines.push(columns([&printable(&burst.group), &count, &placed, &finished, &failed, &ago, &took]));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_709_251_200_000;

    fn picture() -> Picture {
        let mut activity = Activity::default();
        let finished = |index: u64, code: u64| {
            json!({ "kind": "container", "container": format!("0h3k9m2q7r8st-{index}"), "at_ms": NOW - 3_000,
                    "state": "finished", "attempt": 1, "outcome_words": format!("exit code {code}") })
        };
        activity.on_events(&json!({ "events": [
            { "kind": "group_accepted", "group": "0h3k9m2q7r8st", "count": 2, "at_ms": NOW - 4_240 },
            finished(0, 0), finished(1, 3),
            { "kind": "group_accepted", "group": "0h3kabcdefghj", "count": 100_000, "at_ms": NOW - 500 },
        ] }));
        let amounts =
            |cpu: u64, gpu: u64| json!({ "cpu_milli": cpu, "memory_bytes": cpu, "slots": 0, "gpu_milli": gpu });
        let overview = json!({
            "now_ms": NOW, "sessions": 2, "pruned": 5, "oldest_wait_ms": 75_000, "shapes": 3,
            "blocked_containers": 99_000,
            "containers": { "queued": 99_500, "claimed": 300, "assigned": 20, "starting": 3, "running": 177,
                            "stopping": 0, "finished": 2 },
            "pools": [
                { "pool": "default", "workers": { "ready": 12, "lost": 1 }, "empty": 3, "holds": 1, "containers": 177,
                  "capacity": amounts(48_000, 0), "free": amounts(9_000, 0) },
                { "pool": "a-pool-with-a-very-long-name", "workers": {}, "empty": 0, "holds": 0, "containers": 0,
                  "capacity": amounts(0, 16_000), "free": amounts(0, 500) },
            ],
            "backlog": [
                { "asks": "2 CPU, 4Gi, H100:2, pool gpu", "waiting": 99_000, "waited_ms": 75_000, "blocked": true,
                  "words": "3 workers of pool gpu are full (at least 1 CPU short, at least 512Mi memory short); there\u{1b}" },
                { "asks": "500m CPU, 128Mi", "waiting": 500, "waited_ms": 20, "blocked": false, "words": "" },
            ],
        });
        Picture { server: "http://127.0.0.1:7171".to_owned(), overview, activity, trouble: None }
    }

    #[test]
    fn a_frame_of_80_columns() {
        let shown = frame(&picture(), Size { columns: 80, rows: 24 });
        let expected = "\
volley http://127.0.0.1:7171             2 servers  2024-03-01 00:00:00  q quits

  WAITING    BLOCKED   PLACING   RUNNING   STOPPING    FINISHED   OLDEST WAIT
    99500      99000       323       177          0           7        1m 15s

over 10s: submitted 10000.2/s, placed 0.0/s, finished 0.2/s

POOL               READY OTHER EMPTY  HELD ATTEMPTS    CPU  MEMORY  SLOTS  GPUS
default               12     1     3     1      177    81%     81%      -     -
a-pool-with-a-very     0     0     0     0        0      -       -      -   96%

  WAITING   OLDEST  SHAPE (1 more below)
    99000   1m 15s  2 CPU, 4Gi, H100:2, pool gpu
                    3 workers of pool gpu are full (at least 1 CPU short, at lea
      500     20ms  500m CPU, 128Mi
                    waiting for its turn

LAST BURSTS        COUNT    PLACED  FINISHED    FAILED       AGO      TOOK
0h3kabcdefghj     100000         0         0         0     500ms         -
0h3k9m2q7r8st          2         0         2         1     4.24s     1.24s
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn no_frame_is_larger_than_its_screen() {
        let mut picture = picture();
        picture.trouble = Some("no answer".to_owned());
        let pool = picture.overview["pools"][0].clone();
        picture.overview["pools"] = vec![pool; 64].into();
        let shape = picture.overview["backlog"][0].clone();
        picture.overview["backlog"] = vec![shape; 100].into();
        for rows in 1..60 {
            for columns in [40, 79, 80, 200] {
                let shown = frame(&picture, Size { columns, rows });
                assert!(shown.lines().count() <= rows, "{rows}: {shown}");
                assert!(shown.lines().all(|line| line.chars().count() <= columns), "{columns}: {shown}");
                assert!(!shown.contains('\u{1b}'), "what clients name drives no terminal");
                // All parts are there where there is room for them.
                assert!(rows < 24 || shown.contains("LAST BURSTS"), "{rows}: {shown}");
            }
        }
    }

    #[test]
    fn a_cell_without_anything_is_shown_too() {
        let picture =
            Picture { server: String::new(), overview: Value::Null, activity: Activity::default(), trouble: None };
        let shown = frame(&picture, Size { columns: 80, rows: 24 });
        assert!(shown.contains("nothing") && shown.contains("LAST BURSTS"), "{shown}");
    }
}
