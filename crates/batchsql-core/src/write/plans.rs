//! Owns what a sink prepared once per schema.
//! Must not know sinks or tables.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::model::schema::{Schema, SchemaId};

/// Plans by schema.
pub(crate) struct Plans<P> {
    /// With the schema, because the id of a dropped schema is used again.
    known: RwLock<HashMap<SchemaId, (Schema, Arc<P>)>>,
}

impl<P> Default for Plans<P> {
    fn default() -> Self {
        Self { known: RwLock::default() }
    }
}

impl<P> Plans<P> {
    pub(crate) fn get(&self, schema: &Schema) -> Option<Arc<P>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&schema.id()).map(|(_, plan)| Arc::clone(plan))
    }

    pub(crate) fn insert(&self, schema: &Schema, plan: Arc<P>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(schema.id(), (schema.clone(), plan));
    }

    pub(crate) fn forget(&self, schemas: &[SchemaId]) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        schemas.iter().for_each(|id| drop(known.remove(id)));
    }
}
