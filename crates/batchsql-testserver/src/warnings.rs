//! Owns the collection of a crate's warnings in a test.
//! Must not know what they say.

use std::fmt;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Collects the warnings of one crate; for `tracing::subscriber::set_default`.
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
        let _guard = tracing::subscriber::set_default(warnings.clone());
        tracing::warn!(target: "here::inside", rows = 3, "slow");
        tracing::warn!(target: "elsewhere", "slow");
        tracing::info!(target: "here", "started");
        assert_eq!(warnings.taken(), ["message=slow rows=3 "]);
        assert_eq!(warnings.taken(), [""; 0]);
    }
}
