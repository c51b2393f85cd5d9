//! Owns the collection of what is logged on the thread of a test.
//! Must not know what it says.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, Interest};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};

/// Makes a subscriber that of this thread, as `tracing::subscriber::set_default`, and keeps other threads from taking
/// events away from it.
///
/// While a process has only one subscriber, tracing-core 0.1.36 asks the thread that logs an event for the first time
/// whether anybody wants it, and stores the answer for all threads. That thread may belong to another test, without a
/// subscriber. Two more subscribers, which have no opinion, make it ask each time.
pub fn subscribe(subscriber: impl Into<Dispatch>) -> DefaultGuard {
    static UNDECIDED: OnceLock<[Dispatch; 2]> = OnceLock::new();
    UNDECIDED.get_or_init(|| [Dispatch::new(Undecided), Dispatch::new(Undecided)]);
    tracing::dispatcher::set_default(&subscriber.into())
}

/// Wants no event, but does not say so in advance.
struct Undecided;

impl Subscriber for Undecided {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, _: &Metadata<'_>) -> bool {
        false
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Collects the warnings of one crate; for [`subscribe`].
#[derive(Debug, Clone)]
pub struct Warnings {
    target: &'static str,
    texts: Arc<Mutex<Vec<String>>>,
}

impl Warnings {
    /// Those of a crate, by its name in Rust: `batchsql_mysql`.
    pub fn of(target: &'static str) -> Self {
        Self { target, texts: Arc::default() }
    }

    /// The warnings since the last call: the fields of each, with the message.
    ///
    /// # Panics
    /// Another thread panicked meanwhile.
    pub fn taken(&self) -> Vec<String> {
        std::mem::take(&mut *self.texts.lock().expect("no panic with the lock held"))
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN && metadata.target().starts_with(self.target)
    }

    fn event(&self, event: &Event<'_>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                self.0.push_str(&format!("{field}={value:?} "));
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.texts.lock().expect("no panic with the lock held").push(text.0);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_of_one_crate_are_collected_once() {
        let warnings = Warnings::of("here");
        let _guard = subscribe(warnings.clone());
        tracing::warn!(target: "here::inside", rows = 3, "slow");
        tracing::warn!(target: "elsewhere", "slow");
        tracing::info!(target: "here", "started");
        assert_eq!(warnings.taken(), ["message=slow rows=3 "]);
        assert_eq!(warnings.taken(), [""; 0]);
    }
    /// The threads log it for the first time while another one has the only subscriber.
    #[test]
    fn a_thread_without_a_subscriber_takes_no_event_away() {
        fn log() {
            tracing::warn!(target: "there", "logged");
        }
        let warnings = Warnings::of("there");
        let _guard = subscribe(warnings.clone());
        std::thread::spawn(log).join().unwrap();
        log();
        assert_eq!(warnings.taken().len(), 1);
    }
}
