//! Owns the setting of how drivers handle a write that was given up.
//! Must not know databases.

/// What happens to a write that was abandoned after it was sent, before the next write of ordered rows. For the sinks of
/// MySQL and Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AbandonedWrites {
    /// The sink ends its session at the server, from another connection (`KILL`, `CLIENT KILL`), and the next write
    /// waits until it is gone.
    #[default]
    Kill,
    /// Nothing is killed; the next write waits for the `late_write_limit` of the options. For proxies that share the
    /// sessions of the server between their clients, or route each command separately: there the id of a session names
    /// one that other clients also use.
    Wait,
}
