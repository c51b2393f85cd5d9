//! Owns the registration of handles that share labels: those of one pipeline, or of one of its tables.
//! Must not know which handles there are, or their values.

use std::collections::HashMap;
use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, SharedString};

use crate::capped::{Capped, OTHER};
use crate::catalogue::Metric;
use crate::emit::Emitter;

/// Registers handles whose labels all have these values.
#[derive(Clone)]
pub(crate) struct Scope<const N: usize> {
    emitter: Emitter,
    values: [SharedString; N],
}

impl Scope<1> {
    pub(crate) fn of_pipeline(emitter: &Emitter, database: &SharedString) -> Self {
        Self { emitter: emitter.clone(), values: [database.clone()] }
    }

    fn of_table(&self, table: SharedString) -> Scope<2> {
        let [database] = self.values.clone();
        Scope { emitter: self.emitter.clone(), values: [database, table] }
    }
}

impl Scope<2> {
    /// With the reason as one more label.
    pub(crate) fn because(&self, reason: &'static str) -> Scope<3> {
        let [database, table] = self.values.clone();
        Scope { emitter: self.emitter.clone(), values: [database, table, SharedString::const_str(reason)] }
    }
}

impl<const N: usize> Scope<N> {
    pub(crate) fn gauge(&self, metric: Metric) -> Gauge {
        self.emitter.gauge(metric, self.values.clone().map(Some))
    }

    pub(crate) fn counter(&self, metric: Metric) -> Counter {
        self.emitter.counter(metric, self.values.clone().map(Some))
    }

    pub(crate) fn histogram(&self, metric: Metric) -> Histogram {
        self.emitter.histogram(metric, self.values.clone().map(Some))
    }
}

/// The handles `S` of the tables of one pipeline. Tables beyond the limit share theirs.
pub(crate) struct TableScopes<S> {
    pipeline: Scope<1>,
    tables: Capped<Box<str>, S>,
    register: fn(&Scope<2>) -> S,
}

impl<S> TableScopes<S> {
    pub(crate) fn new(pipeline: &Scope<1>, max_tables: usize, register: fn(&Scope<2>) -> S) -> Self {
        Self { pipeline: pipeline.clone(), tables: Capped::new(max_tables), register }
    }

    /// The handles of a table, registered with the first call.
    pub(crate) fn table(&self, table: &str) -> Arc<S> {
        let new = |is_known: bool| {
            let table = if is_known { table.to_owned().into() } else { SharedString::const_str(OTHER) };
            (self.register)(&self.pipeline.of_table(table))
        };
        self.tables.get(table, || table.into(), new)
    }

    /// Sets the handles of every table. The values of tables that share handles are added up first.
    pub(crate) fn set_all<T: Default>(
        &self,
        tables: &[T],
        name: impl Fn(&T) -> &str,
        add: impl Fn(&mut T, &T),
        set: impl Fn(&S, &T),
    ) {
        let mut sums: HashMap<*const S, (Arc<S>, T)> = HashMap::new();
        for table in tables {
            let series = self.table(name(table));
            let (_, sum) = sums.entry(Arc::as_ptr(&series)).or_insert_with(|| (series, T::default()));
            add(sum, table);
        }
        for (series, sum) in sums.values() {
            set(series, sum);
        }
    }
}
