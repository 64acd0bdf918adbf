//! Tests of planning: named cases, and laws over random fleets with an oracle that scans.

mod choice;
mod counterfactuals;
mod laws;
mod oracle;
mod random;
mod scene;
mod waiting;
