//! NATS JetStream, as the program uses it: `connect` has the connection, `stream` makes and checks the streams of a configuration,
//! `publish` has the `publisher` of `[publish]` (`opening` while NATS is unreachable), `worker` the worker of a source, `json` the
//! messages of other publishers that it reads.
//!
//! Without the feature `nats` a configuration that uses a stream is refused before anything of this is called.

#[cfg(feature = "nats")]
pub(crate) mod connect;
#[cfg(feature = "nats")]
mod json;
#[cfg(feature = "nats")]
mod opening;
#[cfg(feature = "nats")]
pub(crate) mod publish;
#[cfg(not(feature = "nats"))]
#[path = "no_publish.rs"]
pub(crate) mod publish;
pub(crate) mod publisher;
#[cfg(feature = "nats")]
pub(crate) mod stream;
#[cfg(feature = "nats")]
pub(crate) mod worker;
