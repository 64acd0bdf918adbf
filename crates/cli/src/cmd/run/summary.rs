//! How the containers of a group ended, and how long they took.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use serde_json::{Value, json};
use volley_control::TurnStats;
use volley_model::Millis;
use volley_wire::client::Client;

use crate::command_error::CommandError;
use crate::output::{self, Format};
use crate::words;

/// Median and worst of a span, over those that got so far.
type Span = Option<(Millis, Millis)>;

/// What became of a group.
pub(super) struct Summary {
    group: String,
    containers: u64,
    good: u64,
    ends: BTreeMap<String, u64>,
    spans: [(&'static str, Span); 3],
    workers: BTreeSet<String>,
    only_code: Option<u8>,
}

impl Summary {
    /// Reads all of a group's containers.
    pub(super) async fn of(client: &Client, group: &str) -> Result<Self, CommandError> {
        let mut spans: [(&str, &str, Vec<Millis>); 3] = [
            ("assigned", "assigned_at_ms", Vec::new()),
            ("started", "started_at_ms", Vec::new()),
            ("finished", "finished_at_ms", Vec::new()),
        ];
        let (mut containers, mut good, mut only_code) = (0, 0, None);
        let (mut ends, mut workers) = (BTreeMap::new(), BTreeSet::new());
        let mut after = String::new();
        loop {
            let page = client.json(Method::GET, &format!("/v1/containers?group={group}{after}"), None).await?;
            for record in page["containers"].as_array().into_iter().flatten() {
                containers += 1;
                good += u64::from(record["success"] == true);
                only_code = record["outcome"]["code"].as_i64().and_then(|code| u8::try_from(code).ok());
                let end = record["outcome_words"].as_str().or(record["state"].as_str()).unwrap_or_default();
                *ends.entry(end.to_owned()).or_default() += 1;
                workers.extend(record["worker"].as_str().map(str::to_owned));
                let submitted = record["submitted_at_ms"].as_u64().unwrap_or_default();
                // What ended before its start was reported is reported once, as ended; it started before that.
                let ran = record["outcome"]["outcome"] == "exited";
                for (_, field, found) in &mut spans {
                    let at = &record[*field];
                    let at = if at.is_null() && ran { &record["finished_at_ms"] } else { at };
                    found.extend(at.as_u64().map(|at| Millis(at.saturating_sub(submitted))));
                }
            }
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        let spans = spans.map(|(name, _, mut found)| (name, words::median_and_worst(&mut found)));
        only_code = only_code.filter(|_| containers == 1);
        Ok(Self { group: group.to_owned(), containers, good, ends, spans, workers, only_code })
    }

    /// All exited with 0.
    pub(super) fn all_good(&self) -> bool {
        self.good == self.containers
    }

    /// The exit code of the only container.
    pub(super) fn only_code(&self) -> Option<u8> {
        self.only_code
    }

    /// Prints it; with the turns of a server that did nothing else.
    pub(super) fn write(&self, turns: Option<&TurnStats>, format: Format) -> Result<(), CommandError> {
        match format {
            Format::Quiet => output::write_line(&self.group)?,
            Format::Json => output::write_json_object(self.json(turns))?,
            Format::Table => self.print(turns),
        }
        Ok(())
    }

    fn json(&self, turns: Option<&TurnStats>) -> Value {
        let span = |span: Span| span.map(|(median, worst)| json!({"median_ms": median.0, "worst_ms": worst.0}));
        let spans: BTreeMap<_, _> = self.spans.iter().map(|(name, found)| (*name, span(*found))).collect();
        let mut value = json!({
            "group": self.group, "containers": self.containers, "succeeded": self.good, "ends": self.ends,
            "since_submit": spans, "workers": self.workers.len(),
        });
        if let Some(turns) = turns {
            value["batches"] = turns.batches.into();
            value["largest_batch"] = turns.largest.into();
            value["refused"] = turns.refused.into();
            value["workers_bought"] = 0.into();
        }
        value
    }

    fn print(&self, turns: Option<&TurnStats>) {
        let ends: Vec<String> = self.ends.iter().map(|(end, count)| format!("{count} {end}")).collect();
        let many = words::count(self.containers, "container", "containers");
        eprintln!("group {}: {many}: {}", self.group, output::printable(&ends.join(", ")));
        for (name, span) in self.spans {
            if let Some((median, worst)) = span {
                let (median, worst) = (words::span(median), words::span(worst));
                eprintln!("submit to {name:9} median {median:>6}  worst {worst:>6}");
            }
        }
        let workers = words::count(self.workers.len() as u64, "worker", "workers");
        match turns {
            Some(turns) => eprintln!(
                "{}, at most {} containers each; {workers} used, 0 would have been bought",
                words::count(turns.batches, "batch", "batches"),
                turns.largest,
            ),
            None => eprintln!("{workers} used"),
        }
    }
}
