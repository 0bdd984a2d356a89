//! The dashboard: who gets it and what comes, over HTTP; and how it looks to a browser, while jobs run, are held up, and die.

mod acting;
mod browser;
mod child;
mod over_http;
mod records;
mod seen;

pub(crate) use browser::look;
