//! Owns the requests of a durable intake: their rows are held until the body has ended, and stored all or none, with their key.
//! Must not know HTTP.

use std::time::Duration;

use batchsql::durable::{DurableBatchSql, DurableSubmitError, Once, RequestKey, RowGroup};
use sha2::{Digest, Sha256};

use crate::http::held_bytes::Reserved;
use crate::http::ingest::Stop;
use crate::http::progress::Progress;
use crate::table::target::Target;
use crate::words;

/// The key of a request, which is stored with its rows.
#[derive(Debug)]
pub(crate) struct DurableKey {
    id: [u8; 32],
    /// Of the lines that were read.
    content: Sha256,
}

impl DurableKey {
    /// A key belongs to a client and a table. What is stored has a fixed length.
    pub(crate) fn new(client: &str, table: &str, key: &str) -> Self {
        let mut id = Sha256::new();
        for part in [client, table, key] {
            id.update((part.len() as u64).to_le_bytes());
            id.update(part);
        }
        Self { id: id.finalize().into(), content: Sha256::new() }
    }

    fn line(&mut self, number: u64, text: &[u8]) {
        self.content.update(number.to_le_bytes());
        self.content.update((text.len() as u64).to_le_bytes());
        self.content.update(text);
    }

    fn request(&self) -> RequestKey {
        let content: [u8; 32] = self.content.clone().finalize().into();
        RequestKey::new(self.id, content)
    }
}

/// What a request may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeldLimits {
    /// Bytes of rows that are stored together.
    pub(crate) together: usize,
    /// How long it waits for memory that other requests have.
    pub(crate) capacity_time: Duration,
    pub(crate) rejections: usize,
}

/// One request.
pub(crate) struct Held<'a> {
    intake: &'a DurableBatchSql,
    target: &'a Target,
    limits: HeldLimits,
    key: Option<DurableKey>,
    group: RowGroup,
    reserved: Reserved,
    /// The lines that are stored.
    stored: Progress,
    /// And those that are held.
    read: Progress,
    is_repeated: bool,
}

impl<'a> Held<'a> {
    pub(crate) fn new(
        intake: &'a DurableBatchSql,
        target: &'a Target,
        limits: HeldLimits,
        reserved: Reserved,
        key: Option<DurableKey>,
    ) -> Self {
        Self {
            intake,
            target,
            limits,
            key,
            group: intake.group(),
            reserved,
            stored: Progress::default(),
            read: Progress::default(),
            is_repeated: false,
        }
    }

    /// The next line.
    ///
    /// # Errors
    /// The rest of the request is not accepted, from the line behind the progress on.
    pub(crate) async fn line(&mut self, line: u64, text: &[u8]) -> Result<(), Stop> {
        if let Some(key) = &mut self.key {
            key.line(line, text);
        }
        let row = match self.target.row_of_json(text) {
            Ok(row) => row,
            Err(reason) => {
                self.read.refuse(line, reason, self.limits.rejections);
                return Ok(());
            }
        };
        let mut pushed = self.group.push(&row);
        if pushed.as_ref().is_err_and(|error| error.is_too_many() && !self.group.is_empty()) {
            self.store_part().await?;
            pushed = self.group.push(&row);
        }
        match pushed {
            Ok(()) => self.read.accept(line),
            Err(error) if error.is_closed() => return Err(Stop::Closed),
            // The intake has checks that need no database.
            Err(error) => {
                let reason = words::of_program(&error.to_string()).into_owned();
                self.read.refuse(line, reason, self.limits.rejections);
            }
        }
        // First, so that a request never waits for more memory than there is.
        if self.group.bytes() > self.limits.together {
            return self.store_part().await;
        }
        if !self.reserved.grow(self.group.bytes(), self.limits.capacity_time).await {
            return Err(Stop::Full);
        }
        Ok(())
    }

    /// The body is over: everything is stored.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub(crate) async fn end(&mut self) -> Result<(), Stop> {
        self.store().await
    }

    /// More than can be stored together.
    async fn store_part(&mut self) -> Result<(), Stop> {
        if self.key.is_some() {
            return Err(Stop::TooLarge(self.limits.together));
        }
        self.store().await
    }

    async fn store(&mut self) -> Result<(), Stop> {
        let stored = match &self.key {
            None => self.intake.submit_group(&self.group).await.map(Once::Stored),
            Some(key) => self.intake.submit_group_once(&self.group, &key.request()).await,
        };
        if let Once::Repeated(rows) = stored.map_err(|error| self.stop(error))? {
            self.is_repeated = true;
            self.read.accepted = rows as u64;
        }
        self.group = self.intake.group();
        self.reserved.release();
        self.stored = self.read.clone();
        Ok(())
    }

    /// What became of the lines so far.
    pub(crate) fn progress(&self) -> &Progress {
        &self.stored
    }

    fn stop(&self, error: DurableSubmitError) -> Stop {
        match error {
            error if error.is_full() && self.intake.health().log_is_full => Stop::LogFull,
            error if error.is_full() => Stop::Full,
            error if error.is_closed() => Stop::Closed,
            error if error.is_other_content() => Stop::OtherBody,
            error if error.is_in_use() => Stop::InUse,
            error => Stop::Undetermined(error.to_string()),
        }
    }

    /// The rows were stored by an earlier request.
    pub(crate) fn is_repeated(&self) -> bool {
        self.is_repeated
    }
}
