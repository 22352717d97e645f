//! The two forms of a logged question: [`line`] of JSON, and [`dnstap`].
//!
//! Pure: a record goes in, bytes come out. Who samples, queues and writes is not decided here.

pub mod dnstap;
pub mod line;
