//! The parameters of an address: each may be given once (or more often, where it says so), and
//! one that is not known is a mistake. Knows nothing of what they mean.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::extract::Query;
use http::request::Parts;

use super::PAGE_MAX;
use crate::problem::Problem;

/// Parameters as they were given.
#[derive(Debug)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let Query(pairs) = read.map_err(|error| Problem::new(http::StatusCode::BAD_REQUEST, error.body_text()))?;
        Ok(Self(pairs))
    }
}

impl Parameters {
    /// Refuses all but these.
    pub(crate) fn known(self, names: &[&str]) -> Result<Self, Problem> {
        match self.0.iter().find(|(name, _)| !names.contains(&name.as_str())) {
            None => Ok(self),
            Some((name, _)) if names.is_empty() => Err(Problem::parameter(name, "not known; there are none")),
            Some((name, _)) => Err(Problem::parameter(name, format!("not known; there are {}", names.join(", ")))),
        }
    }

    /// All values of a name.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// As text; `None` when it was not given.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.all(name);
        let value = values.next();
        if values.next().is_some() { Err(Problem::parameter(name, "give it once")) } else { Ok(value) }
    }

    /// As a value.
    pub(crate) fn value<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, Problem> {
        let text = self.text(name)?;
        text.map(|text| text.parse().map_err(|error: T::Err| Problem::parameter(name, error))).transpose()
    }

    /// Whether it is `true`.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Problem> {
        Ok(self.value(name)?.unwrap_or(false))
    }

    /// The size of a page.
    pub(crate) fn max(&self) -> Result<u32, Problem> {
        Ok(self.value::<u32>("max")?.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX))
    }
}
