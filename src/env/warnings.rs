//! Warnings reach somebody: standard error, where the program subscribed to `tracing` nowhere (X21).

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::LazyLock;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::NoSubscriber;
use tracing::{Dispatch, Event, Level, Metadata, Subscriber, dispatcher};

/// Emits events: to whoever subscribed, else to standard error. A library must not subscribe for its program, so the
/// subscriber of ours is there for the moment only; one that the program sets later gets everything from then on.
pub(crate) fn heard<R>(emit: impl FnOnce() -> R) -> R {
    static STDERR: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(StandardError));
    match dispatcher::get_default(|subscribed| subscribed.is::<NoSubscriber>()) {
        true => dispatcher::with_default(&STDERR, emit),
        false => emit(),
    }
}

/// As `tracing::warn!`, but heard in any case.
macro_rules! warn_heard {
    ($($event:tt)+) => { $crate::env::heard(|| ::tracing::warn!($($event)+)) };
}

/// As `tracing::error!`, but heard in any case.
macro_rules! error_heard {
    ($($event:tt)+) => { $crate::env::heard(|| ::tracing::error!($($event)+)) };
}

pub(crate) use {error_heard as error, warn_heard as warn};

/// Writes warnings and errors, a line each.
struct StandardError;

impl Subscriber for StandardError {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let line = line(event);
        // Nobody can be told that nobody can be told.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn line(event: &Event<'_>) -> String {
    let mut words = Words::default();
    event.record(&mut words);
    let level = match *event.metadata().level() {
        Level::ERROR => "error",
        _ => "warning",
    };
    format!("onceflow: {level}: {}{}\n", words.message, words.fields)
}

#[derive(Default)]
struct Words {
    message: String,
    fields: String,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps what it hears.
    #[derive(Clone, Default)]
    struct Ear(std::sync::Arc<parking_lot::Mutex<Vec<String>>>);

    impl Subscriber for Ear {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            self.0.lock().push(line(event));
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn x21_whoever_subscribed_gets_the_warning_and_its_fields() {
        let ear = Ear::default();
        tracing::subscriber::with_default(ear.clone(), || {
            crate::env::warn!(job = "copy", offset = 3, "the store {} is new", "counts");
        });
        let expected = "onceflow: warning: the store counts is new job=\"copy\" offset=3\n";
        assert_eq!(*ear.0.lock(), [expected]);
    }
}
