//! Owns the conditions of a network: delay, bandwidth, silence, lost answers.
//! Must not know connections.

use std::time::Duration;

/// What the network does with bytes. The default does nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conditions {
    pub(crate) delay: Duration,
    pub(crate) bytes_per_second: Option<u32>,
    pub(crate) is_silent: bool,
    pub(crate) one_answer_lost_in: Option<u32>,
}

impl Conditions {
    /// The delay of each direction: half of the round trip.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// The bandwidth of each direction of each connection, at least 1 byte per second.
    #[must_use]
    pub fn bytes_per_second(mut self, bytes: u32) -> Self {
        self.bytes_per_second = Some(bytes.max(1));
        self
    }

    /// Nothing is delivered until the conditions change; then all of it is, even if one side has closed in the meantime.
    #[must_use]
    pub fn silent(mut self) -> Self {
        self.is_silent = true;
        self
    }

    /// One answer of the server in so many is dropped, at random: its client loses the connection, and the server executes
    /// what it was sent.
    #[must_use]
    pub fn one_answer_lost_in(mut self, answers: u32) -> Self {
        self.one_answer_lost_in = Some(answers.max(1));
        self
    }
}
