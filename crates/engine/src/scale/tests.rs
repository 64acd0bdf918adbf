//! Tests of the scale plan: against the exact optimum, the named cases, and what is given up.

mod give_up;
mod named;
mod optimum;
mod scene;
