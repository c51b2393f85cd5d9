//! Owns what all requests share.
//! Must not know how a request is answered.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::sections::Limits;
use crate::config::settings::Http;
use crate::http::access::Access;
use crate::http::held_bytes::HeldBytes;
use crate::http::idempotency::Keys;
use crate::intake::Intake;
use crate::table::target::Target;

/// The state of the server. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) intake: Intake,
    pub(crate) tables: BTreeMap<String, Arc<Target>>,
    pub(crate) access: Access,
    pub(crate) limits: Limits,
    /// Of rows in memory. A durable intake has its own, which are stored with the rows.
    pub(crate) keys: Arc<Keys>,
    /// Of rows that wait for the end of their body.
    pub(crate) held: HeldBytes,
    is_draining: AtomicBool,
}

impl Shared {
    pub(crate) fn new(intake: Intake, tables: BTreeMap<String, Arc<Target>>, http: &Http) -> Self {
        Self(Arc::new(Inner {
            intake,
            tables,
            access: Access::new(&http.tokens),
            limits: http.limits.clone(),
            keys: Keys::new(http.idempotency.keep_for, http.idempotency.keys),
            held: HeldBytes::new(http.limits.held, http.limits.together),
            is_draining: AtomicBool::new(false),
        }))
    }

    /// From now on requests are refused.
    pub(crate) fn drain(&self) {
        self.0.is_draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.0.is_draining.load(Ordering::Relaxed)
    }
}

impl Deref for Shared {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}
