//! Commands that look into what the service leaves on disk: `letters` (dead letters) and `log` (the durable intake).

pub(crate) mod letters;
pub(crate) mod log;
