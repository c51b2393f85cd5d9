//! Owns the thread that reads a file: each stripe that has something to do goes to its partition, while it is parsed.
//! Must not know how stripes are written.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use batchsql::BatchSql;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::sections::Format;
use crate::exit::Failure;
#[cfg(feature = "arrow")]
use crate::load::batches;
use crate::load::file::Input;
use crate::load::incomplete::unreadable;
use crate::load::layout::Done;
use crate::load::parse::{Parsed, Shape, parse};
use crate::load::stripes::{self, Stripe};
use crate::table::csv_record::Header;
use crate::table::target::Target;

/// The thread that reads the file.
pub(crate) struct Reader {
    pub(crate) db: BatchSql,
    pub(crate) target: Arc<Target>,
    pub(crate) input: Input,
    pub(crate) delimiter: u8,
    pub(crate) done: Done,
}

/// What was read.
pub(crate) struct Read {
    pub(crate) records: u64,
    /// Records that were done before.
    pub(crate) before: u64,
}

impl Reader {
    /// Sends each stripe that has something to do to its partition, while it is parsed.
    ///
    /// # Errors
    /// The file cannot be read, or its content does not fit the table.
    pub(crate) fn read(
        self,
        handle: &Handle,
        partitions: &[mpsc::Sender<JoinHandle<Parsed>>],
    ) -> std::io::Result<Read> {
        let Self { db, target, input, delimiter, done } = self;
        let read = Arc::new(AtomicU64::new(0));
        let shape: Arc<OnceLock<Shape>> = Arc::default();
        let front = done.front();
        let (mut records, mut behind) = (0, done.records_behind());
        let next = |stripe: Stripe| {
            records = stripe.last();
            let reached = done.reached(stripe.first);
            behind += records.min(reached).saturating_sub(front.max(stripe.first - 1));
            if records <= reached {
                return true;
            }
            let partition = &partitions[done.partition(stripe.first)];
            let (db, target, shape) = (db.clone(), Arc::clone(&target), Arc::clone(&shape));
            let parsing = handle.spawn_blocking(move || parse(stripe, &target, shape.get(), reached, &db));
            // Whoever writes the stripes has ended if nobody takes it.
            partition.blocking_send(parsing).is_ok()
        };
        #[cfg(feature = "arrow")]
        if input.format.has_batches() {
            let mapped = |mapping| drop(shape.set(Shape::Mapping(mapping)));
            let records = batches::rows(&input, &target, front, mapped, next)?;
            return Ok(Read { records, before: front.min(records) + behind });
        }
        let counted = Arc::clone(&read);
        let content = input.read(move |bytes| {
            counted.fetch_add(bytes, Ordering::Relaxed);
        })?;
        if input.format == Format::Csv {
            let take = |names: &csv::StringRecord| {
                let header = Header::new(&target, names)?;
                let _ = shape.set(Shape::Header(header));
                Ok(())
            };
            stripes::csv(content, delimiter, &read, take, next)?;
        } else {
            stripes::lines(content, &read, next)?;
        }
        Ok(Read { records, before: front.min(records) + behind })
    }
}

/// Checks the header, or the fields, of a file before it is loaded.
///
/// # Errors
/// They do not fit the table, or the file cannot be read.
pub(crate) fn check_fields(input: &Input, target: &Target, delimiter: u8) -> Result<(), Failure> {
    let checked = match input.format {
        Format::Ndjson => Ok(()),
        Format::Csv => input.read(|_| {}).and_then(|content| {
            let header = |names: &csv::StringRecord| Header::new(target, names).map(drop);
            stripes::csv(content, delimiter, &AtomicU64::new(0), header, |_| false)
        }),
        #[cfg(feature = "arrow")]
        Format::Parquet | Format::Arrow => batches::rows(input, target, u64::MAX, drop, |_| false).map(drop),
        #[cfg(not(feature = "arrow"))]
        Format::Parquet | Format::Arrow => Ok(()),
    };
    checked.map_err(|error| unreadable(input, &error))
}
