//! Who may do what, against a real server on a free port with a real store: every route without
//! a token, with one of the wrong role or tenant, revoked, expired; the document against the
//! routes that answer; TLS with certificates made here.

mod document;
mod limits;
mod local;
mod roles;
mod scene;
mod tenants;
mod tls;
mod versions;
