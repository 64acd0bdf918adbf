//! The checks of a submission. Every error names the field.
