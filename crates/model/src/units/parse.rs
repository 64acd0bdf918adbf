//! Parsing and printing of what people write.

/// Why a text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {expected}")]
pub struct UnitError {
    /// What was given (cut to 64 characters).
    pub text: String,
    /// What was expected, with examples.
    pub expected: &'static str,
}
