//! Owns the unit of timestamps.
//! Must not know metrics.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970, the unit of timestamps in Prometheus; 0 for earlier times.
pub(crate) fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
