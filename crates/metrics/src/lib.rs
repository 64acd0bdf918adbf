//! The one room that knows what metrics there are: their names, types, labels and help, the
//! counters behind them, and the text of `/metrics`. Others are handed plain structs and count
//! where things happen. Knows nothing of them, of HTTP, or of what the numbers are good for.

mod instruments;
mod page;
mod process;
mod scale;
mod server;
mod table;
mod worker;

pub use instruments::{Count, Counts, Histogram, Histograms, Value, Values};
pub use page::page;
pub use scale::{MachineMetrics, ScaleMetrics};
pub use server::{FleetMetrics, RequestMetrics, ServerMetrics, StoreMetrics, TurnMetrics, WorkMetrics};
pub use table::{Kind, Label, Metric, Of};
pub use worker::{AttemptMetrics, ImageMetrics, LinkMetrics, WorkerMetrics};
