//! Owns the setters of the settings, so that they can be chained.
//! Must not know what the settings mean.

use std::time::Duration;

use crate::config::PipelineConfig;
use crate::config_policies::{Coalesce, Delivery, Isolation, Ordering, WhenFull};
use crate::config_table::TableConfig;

macro_rules! setters {
    ($($name:ident: $ty:ty),* $(,)?) => {
        /// One setter for each field, to be chained; the fields describe the settings.
        impl PipelineConfig {
            $(
                #[doc = concat!("Sets [`", stringify!($name), "`](Self#structfield.", stringify!($name), ").")]
                #[must_use = "it returns the changed settings"]
                pub fn $name(mut self, $name: $ty) -> Self {
                    self.$name = $name;
                    self
                }
            )*

            /// Sets [`max_batch_rows`](Self#structfield.max_batch_rows). Its default is `None`.
            #[must_use = "it returns the changed settings"]
            pub fn max_batch_rows(mut self, max_batch_rows: usize) -> Self {
                self.max_batch_rows = Some(max_batch_rows);
                self
            }

            /// Sets [`max_age`](Self#structfield.max_age). Its default is `None`.
            #[must_use = "it returns the changed settings"]
            pub fn max_age(mut self, max_age: Duration) -> Self {
                self.max_age = Some(max_age);
                self
            }

            /// Sets the settings of one table, by `name` or `namespace.name`, in place of those that it had; see
            /// [`tables`](Self#structfield.tables).
            #[must_use = "it returns the changed settings"]
            pub fn table(mut self, name: impl Into<String>, table: TableConfig) -> Self {
                self.tables.insert(name.into(), table);
                self
            }
        }
    };
}

macro_rules! table_setters {
    ($($name:ident: $ty:ty),* $(,)?) => {
        /// One setter for each field, to be chained; the fields describe the settings.
        impl TableConfig {
            $(
                #[doc = concat!("Sets [`", stringify!($name), "`](Self#structfield.", stringify!($name), ").")]
                #[must_use = "it returns the changed settings"]
                pub fn $name(mut self, $name: $ty) -> Self {
                    self.$name = Some($name);
                    self
                }
            )*
        }
    };
}

table_setters!(
    flush_size: usize,
    flush_interval: Duration,
    ordering: Ordering,
    retry_for: Duration,
    max_age: Duration,
    weight: u32,
);

setters!(
    buffer_size: usize,
    buffer_bytes: usize,
    flush_size: usize,
    flush_bytes: usize,
    flush_interval: Duration,
    max_concurrency: usize,
    ordering: Ordering,
    when_full: WhenFull,
    coalesce: Coalesce,
    retry_for: Duration,
    park_for: Duration,
    delivery: Delivery,
    statement_timeout: Duration,
    isolation: Isolation,
);
