//! Owns the cases with conflict rules.
//! Must not know databases.

use anyhow::Result;
use async_trait::async_trait;
use batchsql::TypedRow;

use super::throughput::KEYS_PER_WORKER;
use super::{Case, Expected, Load, Settings};
use crate::database::{Database, TableSpec};
use crate::digest::Digest;
use crate::rows::{self, Account, Event, SAMPLES, Texts, Visit};

/// Rows per key, on average.
const VERSIONS: i64 = 10;

/// Spreads `n` over `0..keys` without a pattern that batches could follow.
fn scatter(n: i64, keys: i64) -> i64 {
    (n.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64) >> 20).rem_euclid(keys)
}

/// Keys of one worker.
fn keys(load: &Load) -> i64 {
    (load.settings.rows_per_worker as i64 / VERSIONS).max(1)
}

pub(super) struct DuplicateKeyUpsert;

#[async_trait]
impl Case for DuplicateKeyUpsert {
    fn description(&self) -> &'static str {
        "Ten rows per key on average, in random order: the last one submitted must be in the table. Then every key once \
         more with the rule that keeps existing rows: all of these must be ignored."
    }

    fn tables(&self) -> Vec<TableSpec> {
        vec![Account::table()]
    }

    fn adjust(&self, settings: &mut Settings) {
        settings.note("rows_per_key", VERSIONS);
    }

    async fn drive(&self, load: &Load, _: &dyn Database) -> Result<Expected> {
        let latest = load.workers(|load, worker| async move {
            let mut texts = Texts::default();
            let mut latest = vec![None; keys(&load) as usize];
            for n in 0..load.settings.rows_per_worker as i64 {
                if load.is_over() {
                    break;
                }
                let key = scatter(n, latest.len() as i64);
                load.submit(&texts.account(worker * KEYS_PER_WORKER + key, n)).await?;
                latest[key as usize] = Some(n);
            }
            Ok((worker, latest))
        });
        let latest = latest.await?;
        // The two rules are two statements: only a flush guarantees their order.
        load.db.flush().await?;
        let (mut expected, mut ignored) = (Digest::default(), 0);
        let mut texts = Texts::default();
        for (worker, versions) in latest {
            for (key, version) in versions.into_iter().enumerate().filter_map(|(key, v)| Some((key as i64, v?))) {
                let id = worker * KEYS_PER_WORKER + key;
                expected.add_values(texts.account(id, version).values());
                if !load.is_over() {
                    load.submit(&texts.account(id, -1).if_new()).await?;
                    ignored += 1;
                }
            }
        }
        Ok(Expected { tables: vec![(Account::type_schema().clone(), expected)], ignored, ..Expected::default() })
    }
}

pub(super) struct MixedTables;

#[async_trait]
impl Case for MixedTables {
    fn description(&self) -> &'static str {
        "Four tables at the same time: plain inserts, updates by key, inserts that keep the first row of a key, and \
         rows built at run time with a column of every type, some NULL and some omitted."
    }

    fn tables(&self) -> Vec<TableSpec> {
        vec![Event::table(), Account::table(), Visit::table(), rows::samples_table()]
    }

    async fn drive(&self, load: &Load, _: &dyn Database) -> Result<Expected> {
        let parts = load.workers(|load, worker| async move {
            let mut texts = Texts::default();
            let [mut events, mut accounts, mut visits, mut samples] = [Digest::default(); 4];
            let mut latest = vec![None; keys(&load) as usize];
            let mut ignored = 0;
            for n in 0..load.settings.rows_per_worker as i64 {
                if load.is_over() {
                    break;
                }
                let id = worker * KEYS_PER_WORKER + n;
                match n % 4 {
                    0 => {
                        let event = texts.event(id, 0);
                        load.submit(&event).await?;
                        events.add_values(event.values());
                    }
                    1 => {
                        let key = scatter(n, latest.len() as i64);
                        load.submit(&texts.account(worker * KEYS_PER_WORKER + key, n)).await?;
                        latest[key as usize] = Some(n);
                    }
                    2 => {
                        // Each visit is submitted three times; only the first one is kept.
                        let nth = n / 4 % 3;
                        let visit = texts.visit(worker * KEYS_PER_WORKER + n / 12, nth as i32);
                        load.submit(&visit).await?;
                        if nth == 0 {
                            visits.add_values(visit.values());
                        } else {
                            ignored += 1;
                        }
                    }
                    _ => {
                        let sample = rows::sample(id)?;
                        load.submit(&sample).await?;
                        samples.add_values(rows::all_values(&SAMPLES, &sample));
                    }
                }
            }
            for (key, version) in latest.into_iter().enumerate().filter_map(|(key, v)| Some((key as i64, v?))) {
                accounts.add_values(texts.account(worker * KEYS_PER_WORKER + key, version).values());
            }
            Ok(([events, accounts, visits, samples], ignored))
        });
        let mut expected = Expected::default();
        let schemas = self.tables().into_iter().map(|table| table.schema);
        expected.tables = schemas.map(|schema| (schema, Digest::default())).collect();
        for (digests, ignored) in parts.await? {
            expected.ignored += ignored;
            for ((_, all), digest) in expected.tables.iter_mut().zip(digests) {
                all.merge(digest);
            }
        }
        Ok(expected)
    }
}
